/* pipeline.c - a stage of a pipeline: numbers are made, squared and added up, each by a process of its own.
 *
 *     pipeline source [COUNT] | square | sum
 *
 * The application file is examples/groups/pipeline.toml. Messages are posted: a stage goes on while the next one is
 * still busy, until as much is stored as the file allows.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../check.h"

/* The next number of a channel; 0 when no more comes. */
static int next(mutirao_channel *input, uint64_t *number)
{
    mutirao_error *error = mutirao_channel_receive_into(input, number, sizeof *number, -1, NULL);
    if (mutirao_error_code(error) == MUTIRAO_E_ENDED) {
        mutirao_error_delete(error);
        return 0;
    }
    check(error);
    return 1;
}

int main(int argc, char **argv)
{
    const char *stage = argc > 1 ? argv[1] : "";
    uint64_t number, sum = 0;
    mutirao_group *group;
    mutirao_channel *input = NULL, *output = NULL;
    check(mutirao_group_open(&group));
    if (strcmp(stage, "source") != 0) check(mutirao_group_input(group, 0, &input));
    if (strcmp(stage, "sum") != 0) check(mutirao_group_output(group, 0, &output));
    if (!input) {
        const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
        for (number = 1; number <= count; number++) {
            check(mutirao_channel_post(output, &number, sizeof number, -1));
        }
    } else {
        while (next(input, &number)) {
            if (output) {
                number *= number;
                check(mutirao_channel_post(output, &number, sizeof number, -1));
            } else {
                sum += number;
            }
        }
        if (!output) printf("sum of squares: %" PRIu64 "\n", sum);
    }
    check(mutirao_group_close(group));
    return 0;
}
