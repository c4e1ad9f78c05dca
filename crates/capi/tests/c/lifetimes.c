/* Calls that are deleted, cancelled, waited for and closed upon, in every order. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <mutirao.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int echo(const void *arg, size_t size, mutirao_result *result)
{
    return mutirao_result_set(result, arg, size);
}

static int hang(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size, (void)result;
    while (sleep(60) == 0) continue;
    return 0;
}

static const mutirao_operation operations[] = {{"echo", echo, MUTIRAO_REPEATABLE}, {"hang", hang, 0}};

static void hold(int line, int holds)
{
    if (holds) return;
    fprintf(stderr, "line %d does not hold\n", line);
    exit(1);
}
#define HOLD(condition) hold(__LINE__, condition)

static void check(int line, mutirao_error *error, int code)
{
    if (mutirao_error_code(error) == code) {
        mutirao_error_delete(error);
        return;
    }
    fprintf(stderr, "line %d: error %d, not %d: %s\n", line, mutirao_error_code(error), code, mutirao_error_text(error));
    exit(1);
}
#define CHECK(error) check(__LINE__, error, 0)
#define FAILS(error, code) check(__LINE__, error, MUTIRAO_E_##code)

static int readable(mutirao_pool *pool, int timeout_ms)
{
    struct pollfd event = {mutirao_event_fd(pool), POLLIN, 0};
    int ready;
    while ((ready = poll(&event, 1, timeout_ms)) < 0) HOLD(errno == EINTR);
    return ready;
}

static mutirao_call *start(mutirao_pool *pool, const char *operation)
{
    mutirao_call *call;
    CHECK(mutirao_call_start(pool, operation, "x", 1, NULL, &call));
    return call;
}

/* `done` functions tell through a pipe what they saw. */
static int ends[2];

static void tell(mutirao_call *call, void *context)
{
    mutirao_bytes result;
    mutirao_error *error = mutirao_call_result(call, &result);
    int code = mutirao_error_code(error);
    if (!error) mutirao_bytes_delete(&result);
    mutirao_error_delete(error);
    if (context) {
        HOLD(context == mutirao_call_context(call) && mutirao_call_finished(call));
        mutirao_call_delete(call);
    }
    HOLD(write(ends[1], &code, sizeof code) == sizeof code);
}

static int told(void)
{
    int code;
    HOLD(read(ends[0], &code, sizeof code) == sizeof code);
    return code;
}

/* Starts a further call and waits for it, which a `done` may. */
static void go_on(mutirao_call *call, void *context)
{
    mutirao_pool *pool = context;
    mutirao_bytes result;
    CHECK(mutirao_call_wait(pool, "echo", "further", 7, &result));
    HOLD(result.size == 7 && memcmp(result.data, "further", 8) == 0);
    mutirao_bytes_delete(&result);
    mutirao_call *next = start(pool, "echo");
    CHECK(mutirao_wait(pool, next, -1));
    mutirao_call_delete(next);
    mutirao_call_delete(call);
    const int code = 0;
    HOLD(write(ends[1], &code, sizeof code) == sizeof code);
}

static void descriptor_and_queue(mutirao_pool *pool)
{
    HOLD(!readable(pool, 0) && !mutirao_next(pool));
    /* A call that was waited for and fetched is still reported, once. */
    mutirao_call *call = start(pool, "echo"), *second = start(pool, "echo");
    mutirao_bytes result;
    CHECK(mutirao_wait(pool, call, -1));
    CHECK(mutirao_call_result(call, &result));
    HOLD(result.size == 1 && strcmp(result.data, "x") == 0 && *mutirao_call_node(call));
    mutirao_bytes_delete(&result);
    FAILS(mutirao_call_result(call, &result), ARGUMENT);
    CHECK(mutirao_wait(pool, second, -1));
    mutirao_call *found[2] = {mutirao_next(pool), mutirao_next(pool)};
    HOLD((found[0] == call && found[1] == second) || (found[0] == second && found[1] == call));
    HOLD(!mutirao_next(pool) && !readable(pool, 0));
    mutirao_call_delete(call);
    mutirao_call_delete(second);
    /* A call that is deleted is not, whenever that is. */
    call = start(pool, "echo");
    HOLD(readable(pool, 10000) == 1);
    mutirao_call_delete(call);
    HOLD(!mutirao_next(pool) && !readable(pool, 0));
    mutirao_call_delete(start(pool, "hang"));
    mutirao_call_delete(start(pool, "echo"));
    HOLD(!mutirao_next(pool) && !readable(pool, 50));
}

static void waiting(mutirao_pool *pool, mutirao_pool *other)
{
    mutirao_call *echoes = start(pool, "echo"), *calls[4] = {NULL, start(pool, "hang"), NULL, echoes};
    size_t index = 99;
    FAILS(mutirao_wait_any(pool, calls, 1, -1, &index), ARGUMENT);
    CHECK(mutirao_wait_all(pool, calls, 1, -1));
    CHECK(mutirao_wait_any(pool, calls, 4, 10000, &index));
    HOLD(index == 3);
    CHECK(mutirao_wait_any(pool, calls, 4, 0, &index));
    FAILS(mutirao_wait_all(pool, calls, 4, 50), TIMEOUT);
    FAILS(mutirao_wait(pool, calls[1], 0), TIMEOUT);
    FAILS(mutirao_wait(other, calls[3], 0), ARGUMENT);
    mutirao_bytes result;
    FAILS(mutirao_call_result(calls[1], &result), ARGUMENT);
    HOLD(!mutirao_call_finished(calls[1]) && !*mutirao_call_node(calls[1]));
    mutirao_call_cancel(calls[1]);
    CHECK(mutirao_wait_all(pool, calls, 4, 10000));
    FAILS(mutirao_call_result(calls[1], &result), CANCELLED);
    FAILS(mutirao_call_result(calls[1], &result), CANCELLED);
    mutirao_call_cancel(calls[1]);
    mutirao_call_cancel(calls[3]);
    CHECK(mutirao_call_result(calls[3], &result));
    mutirao_bytes_delete(&result);
    for (int i = 0; i < 4; i++) mutirao_call_delete(calls[i]);
    HOLD(!readable(pool, 0));
}

static void functions(mutirao_pool *pool)
{
    mutirao_call_options options = MUTIRAO_CALL_OPTIONS_INIT;
    options.done = tell;
    options.context = &options;
    for (int i = 0; i < 100; i++) CHECK(mutirao_call_start(pool, "echo", "x", 1, &options, NULL));
    for (int i = 0; i < 100; i++) HOLD(told() == 0);
    HOLD(!mutirao_next(pool)); /* such calls are not reported twice */

    options.context = NULL; /* then `tell` leaves the call to us */
    mutirao_call *call;
    CHECK(mutirao_call_start(pool, "hang", NULL, 0, &options, &call));
    mutirao_call_cancel(call);
    HOLD(told() == MUTIRAO_E_CANCELLED);
    mutirao_call_delete(call);

    CHECK(mutirao_call_start(pool, "hang", NULL, 0, &options, &call));
    mutirao_call_delete(call); /* `tell` would be heard below */

    options.done = go_on;
    options.context = pool;
    CHECK(mutirao_call_start(pool, "echo", NULL, 0, &options, NULL));
    HOLD(told() == 0);

    FAILS(mutirao_call_start(pool, "echo", NULL, 0, NULL, NULL), ARGUMENT);
    FAILS(mutirao_call_start(pool, "echo", NULL, 1, NULL, &call), ARGUMENT);
    FAILS(mutirao_call_start(pool, "nobody", NULL, 0, NULL, &call), NO_OPERATION);
    mutirao_bytes args[2] = {{NULL, 0}, {args, (size_t)MUTIRAO_CALL_BYTES_MAX + 1}};
    mutirao_call *none[2] = {NULL, NULL};
    FAILS(mutirao_call_start_many(pool, "echo", args, 2, NULL, none), TOO_LARGE);
    HOLD(!none[0] && !none[1]);
    CHECK(mutirao_call_start_many(pool, "echo", NULL, 0, NULL, none));
}

static void orders(mutirao_pool *pool)
{
    FAILS(mutirao_kill(pool, "nowhere/1"), ARGUMENT);
    FAILS(mutirao_plugin_approve(pool, "nowhere", "x"), ARGUMENT);
    mutirao_request request = MUTIRAO_REQUEST_INIT;
    request.count = 0;
    FAILS(mutirao_allocate(pool, &request, NULL), ARGUMENT);
    request.count = 1;
    request.at_least = 2;
    FAILS(mutirao_allocate(pool, &request, NULL), ARGUMENT);
    request.at_least = 0;
    request.layout = (mutirao_layout)7;
    FAILS(mutirao_allocate(pool, &request, NULL), ARGUMENT);
    FAILS(mutirao_allocate(pool, NULL, NULL), ARGUMENT);
    const uint64_t unknown[2] = {1u << 30, UINT64_MAX};
    CHECK(mutirao_release(pool, unknown, 2));
    mutirao_bytes text;
    CHECK(mutirao_notes(pool, &text));
    HOLD(text.data && strlen(text.data) == text.size);
    mutirao_bytes_delete(&text);
}

int main(int argc, char **argv)
{
    CHECK(mutirao_init(&argc, &argv, operations, 2));
    HOLD(pipe(ends) == 0);
    mutirao_pool *pool, *other;
    CHECK(mutirao_open(NULL, &pool));
    CHECK(mutirao_open(NULL, &other));
    descriptor_and_queue(pool);
    waiting(pool, other);
    functions(pool);
    orders(pool);
    mutirao_close(other);

    /* Closing ends calls; their objects stay, and `done` is run before it returns. */
    mutirao_call_options options = MUTIRAO_CALL_OPTIONS_INIT;
    options.done = tell;
    mutirao_call *fetched = start(pool, "echo"), *with_done;
    CHECK(mutirao_wait(pool, fetched, -1));
    mutirao_call *left = start(pool, "hang");
    CHECK(mutirao_call_start(pool, "hang", NULL, 0, &options, &with_done));
    mutirao_close(pool);
    HOLD(told() == MUTIRAO_E_CLOSED);
    mutirao_bytes result;
    HOLD(mutirao_call_finished(left));
    FAILS(mutirao_call_result(left, &result), CLOSED);
    CHECK(mutirao_call_result(fetched, &result));
    mutirao_bytes_delete(&result);
    mutirao_call_cancel(left);
    mutirao_call_delete(left);
    mutirao_call_delete(fetched);
    mutirao_call_delete(with_done);
    return 0;
}
