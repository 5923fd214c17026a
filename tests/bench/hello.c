/*
 * Hello world in FastCGI, as one writes it: 16 threads in FCGX_Accept_r on the
 * listening socket at descriptor 0. What `make bench` compares with.
 */
#include <fcgiapp.h>
#include <pthread.h>
#include <stddef.h>

enum { THREADS = 16 };

static void *
serve(void *unused)
{
    FCGX_Request request;

    (void)unused;
    FCGX_InitRequest(&request, 0, 0);
    while (FCGX_Accept_r(&request) == 0) {
        FCGX_PutS("Status: 202 Accepted\r\n"
                  "Content-Type: application/json\r\n\r\n"
                  "{\"hello\":\"world\"}\n",
                  request.out);
        FCGX_Finish_r(&request);
    }
    return NULL;
}

int
main(void)
{
    pthread_t threads[THREADS];

    FCGX_Init();
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, serve, NULL);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}
