/* errors.c - what can go wrong in a call, and how it is told. Other calls go on, whatever happens to one. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <unistd.h>

#include "check.h"

#define BY_ZERO 7

static int divide(const void *arg, size_t size, mutirao_result *result)
{
    const int *n = arg;
    if (size != 2 * sizeof *n) return mutirao_result_fail(result, 1, "two ints are expected");
    if (n[1] == 0) return mutirao_result_fail(result, BY_ZERO, "division by zero");
    const int quotient = n[0] / n[1];
    return mutirao_result_set(result, &quotient, sizeof quotient);
}

static int crash(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size, (void)result;
    fprintf(stderr, "this program has a fault\n");
    abort();
}

static int fault(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size, (void)result;
    return raise(SIGSEGV);
}

static int hang(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size, (void)result;
    while (sleep(60) == 0) continue;
    return 0;
}

static int swell(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size;
    return mutirao_result_reserve(result, (size_t)MUTIRAO_CALL_BYTES_MAX + 1) == NULL;
}

static const mutirao_operation operations[] = {
    {"divide", divide, MUTIRAO_REPEATABLE}, {"crash", crash, 0}, {"fault", fault, 0},
    {"hang", hang, 0},                      {"swell", swell, 0},
};

static void fails(mutirao_pool *pool, const char *operation, int code)
{
    mutirao_bytes result;
    expect_error(operation, mutirao_call_wait(pool, operation, NULL, 0, &result), code);
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, sizeof operations / sizeof *operations));
    mutirao_pool *pool;
    check(mutirao_open(NULL, &pool));
    mutirao_bytes result;
    mutirao_call *call;

    /* The operation says no, with a code of its own. */
    int numbers[2] = {1, 0};
    mutirao_error *error = mutirao_call_wait(pool, "divide", numbers, sizeof numbers, &result);
    expect(mutirao_error_operation_code(error) == BY_ZERO, "the operation's code arrives");
    printf("on node %s, ", mutirao_error_node(error));
    expect_error("divide:", error, MUTIRAO_E_OPERATION);

    /* The worker dies: the error of this one call. The worker is replaced. */
    fails(pool, "crash", MUTIRAO_E_WORKER_ENDED);
    fails(pool, "fault", MUTIRAO_E_WORKER_ENDED);

    /* It takes too long. */
    mutirao_call_options options = MUTIRAO_CALL_OPTIONS_INIT;
    options.limit_ms = 200;
    check(mutirao_call_start(pool, "hang", NULL, 0, &options, &call));
    check(mutirao_wait(pool, call, -1));
    expect_error("hang, limited", mutirao_call_result(call, &result), MUTIRAO_E_TIME_LIMIT);
    mutirao_call_delete(call);

    /* One loses patience, or interest. */
    check(mutirao_call_start(pool, "hang", NULL, 0, NULL, &call));
    expect_error("hang, waited for", mutirao_wait(pool, call, 100), MUTIRAO_E_TIMEOUT);
    expect_error("hang, unfinished", mutirao_call_result(call, &result), MUTIRAO_E_ARGUMENT);
    mutirao_call_cancel(call);
    check(mutirao_wait(pool, call, -1));
    expect_error("hang, cancelled", mutirao_call_result(call, &result), MUTIRAO_E_CANCELLED);
    mutirao_call_delete(call);

    /* These are found out before anything is sent, or by the worker. */
    fails(pool, "no such thing", MUTIRAO_E_NO_OPERATION);
    fails(pool, "swell", MUTIRAO_E_TOO_LARGE);
    const size_t large = (size_t)MUTIRAO_CALL_BYTES_MAX + 1;
    void *argument = calloc(1, large);
    expect(argument != NULL, "there is memory for a large argument");
    expect_error("large argument", mutirao_call_wait(pool, "divide", argument, large, &result), MUTIRAO_E_TOO_LARGE);
    free(argument);

    /* And everything goes on. */
    numbers[1] = 1;
    check(mutirao_call_wait(pool, "divide", numbers, sizeof numbers, &result));
    mutirao_bytes_delete(&result);
    mutirao_close(pool);
    return 0;
}
