libfixtures_a_SOURCES += \
	%D%/fcgi_client.c %D%/fcgi_client.h
unit_tests += \
	%D%/test_auth \
	%D%/test_conn \
	%D%/test_edge_batch \
	%D%/test_edge_listen \
	%D%/test_edge_loop \
	%D%/test_edge_read \
	%D%/test_edge_take \
	%D%/test_edge_write \
	%D%/test_invitation_page \
	%D%/test_pace \
	%D%/test_records \
	%D%/test_reply \
	%D%/test_request \
	%D%/test_route
%C%_test_edge_batch_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=journal_accept \
	-Wl,--wrap=journal_error \
	-Wl,--wrap=journal_lock_holder \
	-Wl,--wrap=push_send
