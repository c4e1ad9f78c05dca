/* farm.c - a master and its workers count primes.
 *
 *     farm master [TASKS] | worker
 *
 * The application file is examples/groups/farm.toml. One channel leads from the master to all workers: a task waits
 * at the master until a worker asks, so that a slow worker holds up none but itself. One channel leads back.
 */
#include <stdio.h>
#include <string.h>

#include "../check.h"

#define STEP 1000

typedef struct {
    uint32_t first; /* of STEP numbers */
    uint32_t primes;
} farm_task;

static uint32_t primes_from(uint32_t first)
{
    uint32_t count = 0;
    for (uint32_t n = first; n < first + STEP; n++) {
        int is_prime = n > 1;
        for (uint32_t d = 2; is_prime && d * d <= n; d++) is_prime = n % d != 0;
        count += (uint32_t)is_prime;
    }
    return count;
}

static void master(mutirao_channel *tasks, mutirao_channel *results, uint32_t count)
{
    uint32_t sum = 0;
    farm_task task = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
        task.first = i * STEP;
        check(mutirao_channel_post(tasks, &task, sizeof task, -1));
    }
    for (uint32_t i = 0; i < count; i++) {
        check(mutirao_channel_receive_into(results, &task, sizeof task, -1, NULL));
        sum += task.primes;
    }
    printf("%u primes below %u\n", sum, count * STEP);
}

static void worker(mutirao_channel *tasks, mutirao_channel *results)
{
    farm_task task;
    mutirao_error *error;
    while ((error = mutirao_channel_receive_into(tasks, &task, sizeof task, -1, NULL)) == NULL) {
        task.primes = primes_from(task.first);
        check(mutirao_channel_post(results, &task, sizeof task, -1));
    }
    /* The master has all it wanted, and has left. */
    if (mutirao_error_code(error) != MUTIRAO_E_ENDED) check(error);
    mutirao_error_delete(error);
}

int main(int argc, char **argv)
{
    const int is_master = argc > 1 && strcmp(argv[1], "master") == 0;
    mutirao_group *group;
    mutirao_channel *input, *output;
    check(mutirao_group_open(&group));
    check(mutirao_group_input(group, 0, &input));
    check(mutirao_group_output(group, 0, &output));
    if (is_master) {
        master(output, input, argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 100);
    } else {
        worker(input, output);
    }
    check(mutirao_group_close(group));
    return 0;
}
