/* The clocks, and wall time as text. */
#include "shared/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define MS_PER_DAY INT64_C(86400000)
#define UNIX_MS_MAX INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */

int64_t
clock_now_us(void)
{
    struct timespec now;

    /* Cannot fail: the clock exists and the pointer is good. */
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
clock_now_ms(void)
{
    return clock_now_us() / 1000;
}

int64_t
clock_now_boot_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

char *
clock_boot_id(char out[CLOCK_BOOT_ID_BYTES])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    out[0] = '\0';
    if (file != NULL) {
        if (fgets(out, CLOCK_BOOT_ID_BYTES, file) == NULL) {
            out[0] = '\0';
        }
        (void)fclose(file);
    }
    out[strcspn(out, "\n")] = '\0';
    return out;
}

int64_t
clock_now_unix_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
put_digits(char *out, int digits, int value)
{
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* Days since 1970-01-01 to the civil date, counted in years that begin in
 * March, so that the leap day is the last of its year. */
static void
civil_date(int64_t days, int *year, int *month, int *day)
{
    int64_t shifted = days + 719468; /* days from 0000-03-01 to 1970-01-01 */
    int era = (int)(shifted / 146097);
    int in_era = (int)(shifted % 146097);
    int year_of_era =
        (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int in_year =
        in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int from_march = (5 * in_year + 2) / 153;

    *day = in_year - (153 * from_march + 2) / 5 + 1;
    *month = from_march < 10 ? from_march + 3 : from_march - 9;
    *year = year_of_era + era * 400 + (*month <= 2 ? 1 : 0);
}

char *
clock_rfc3339(int64_t unix_ms, char out[CLOCK_RFC3339_BYTES])
{
    static const char form[] = "0000-00-00T00:00:00.000Z";
    int year;
    int month;
    int day;
    int in_day;

    if (unix_ms < 0) {
        unix_ms = 0;
    } else if (unix_ms > UNIX_MS_MAX) {
        unix_ms = UNIX_MS_MAX;
    }
    civil_date(unix_ms / MS_PER_DAY, &year, &month, &day);
    in_day = (int)(unix_ms % MS_PER_DAY);
    for (unsigned i = 0; i < sizeof(form); i++) {
        out[i] = form[i];
    }
    put_digits(out, 4, year);
    put_digits(out + 5, 2, month);
    put_digits(out + 8, 2, day);
    put_digits(out + 11, 2, in_day / 3600000);
    put_digits(out + 14, 2, in_day / 60000 % 60);
    put_digits(out + 17, 2, in_day / 1000 % 60);
    put_digits(out + 20, 3, in_day % 1000);
    return out;
}
