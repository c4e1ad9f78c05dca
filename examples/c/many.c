/* many.c - many calls at once: wait for any of them, then for all. Counts the primes below a million. */
#include <stdint.h>

#include "check.h"

#define CALLS 100
#define STRIDE 10000

/* How many primes there are among the STRIDE numbers from a first one on. */
static int primes(const void *arg, size_t size, mutirao_result *result)
{
    if (size != sizeof(uint32_t)) return mutirao_result_fail(result, 1, "a number is expected");
    const uint32_t first = *(const uint32_t *)arg; /* an argument is aligned for any type */
    uint32_t count = 0;
    for (uint32_t n = first < 2 ? 2 : first; n < first + STRIDE; n++) {
        uint32_t d = 2;
        while (d * d <= n && n % d) d++;
        count += d * d > n;
    }
    return mutirao_result_set(result, &count, sizeof count);
}

static const mutirao_operation operations[] = {{"primes", primes, MUTIRAO_REPEATABLE}};

/* Takes the result of a finished call and deletes it. */
static uint32_t take(mutirao_call **call)
{
    mutirao_bytes result;
    check(mutirao_call_result(*call, &result));
    const uint32_t count = *(const uint32_t *)result.data; /* so is a result */
    mutirao_bytes_delete(&result);
    mutirao_call_delete(*call);
    *call = NULL;
    return count;
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));
    mutirao_pool *pool;
    check(mutirao_open(NULL, &pool));

    uint32_t firsts[CALLS], total = 0;
    mutirao_bytes args[CALLS];
    mutirao_call *calls[CALLS];
    for (uint32_t i = 0; i < CALLS; i++) {
        firsts[i] = i * STRIDE;
        args[i].data = &firsts[i];
        args[i].size = sizeof firsts[i];
    }
    check(mutirao_call_start_many(pool, "primes", args, CALLS, NULL, calls));

    for (int i = 0; i < 5; i++) { /* the first five to finish, whichever they are */
        size_t index;
        check(mutirao_wait_any(pool, calls, CALLS, -1, &index));
        printf("from %6u on, on %s\n", firsts[index], mutirao_call_node(calls[index]));
        total += take(&calls[index]); /* NULL from now on, and passed over */
    }
    check(mutirao_wait_all(pool, calls, CALLS, -1));
    for (int i = 0; i < CALLS; i++)
        if (calls[i]) total += take(&calls[i]);

    printf("%u primes below %u\n", total, CALLS * STRIDE);
    expect(total == 78498, "there are 78,498 primes below a million");
    mutirao_close(pool);
    return 0;
}
