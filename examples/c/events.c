/* events.c - finished calls in an event loop: by the pool's descriptor, and by a function of one's own. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "check.h"

#define CALLS 20

static int twice(const void *arg, size_t size, mutirao_result *result)
{
    if (size != sizeof(int)) return mutirao_result_fail(result, 1, "an int is expected");
    const int doubled = 2 * *(const int *)arg;
    return mutirao_result_set(result, &doubled, sizeof doubled);
}

static const mutirao_operation operations[] = {{"twice", twice, MUTIRAO_REPEATABLE}};

static int take(mutirao_call *call)
{
    mutirao_bytes result;
    check(mutirao_call_result(call, &result));
    const int n = *(const int *)result.data;
    mutirao_bytes_delete(&result);
    mutirao_call_delete(call);
    return n;
}

static void wait_readable(int fd)
{
    struct pollfd event = {fd, POLLIN, 0};
    while (poll(&event, 1, -1) < 0)
        expect(errno == EINTR, "poll fails only by a signal");
}

/* A thread of the library calls this; a pipe takes the result to the program's own. */
static void finished(mutirao_call *call, void *context)
{
    const int n = take(call);
    expect(write(*(const int *)context, &n, sizeof n) == sizeof n, "a pipe takes an int");
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));
    mutirao_pool *pool;
    check(mutirao_open(NULL, &pool));

    /* By descriptor: it is readable while mutirao_next() has a call to give. */
    int total = 0;
    for (int i = 0; i < CALLS; i++) {
        mutirao_call *call;
        check(mutirao_call_start(pool, "twice", &i, sizeof i, NULL, &call));
    }
    for (int left = CALLS; left > 0;) {
        wait_readable(mutirao_event_fd(pool));
        for (mutirao_call *call; (call = mutirao_next(pool)); left--) total += take(call);
    }
    printf("by descriptor: %d\n", total);
    expect(total == CALLS * (CALLS - 1), "each number was doubled");

    /* By function. It deletes the calls, so their addresses are of no use here. */
    int ends[2];
    expect(pipe(ends) == 0, "a pipe can be made");
    mutirao_call_options options = MUTIRAO_CALL_OPTIONS_INIT;
    options.done = finished;
    options.context = &ends[1];
    for (int i = 0; i < CALLS; i++) check(mutirao_call_start(pool, "twice", &i, sizeof i, &options, NULL));
    total = 0;
    for (int left = CALLS; left > 0; left--) {
        int n;
        wait_readable(ends[0]);
        expect(read(ends[0], &n, sizeof n) == sizeof n, "a pipe gives an int");
        total += n;
    }
    printf("by function: %d\n", total);
    expect(total == CALLS * (CALLS - 1), "each number was doubled");
    mutirao_close(pool);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
