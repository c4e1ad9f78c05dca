/* A long task that need not begin anew: the sum of the numbers up to N, ten milliseconds each. Run it as the
 * command of a task with a `checkpoint` in a bag file:
 *
 *     [task.sum]
 *     command = "./checkpoint 10000"
 *     checkpoint = "state"
 *     inputs = ["checkpoint"]
 *     retries = 100
 */
#include "check.h"
#include <mutirao.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const long last = argc > 1 ? atol(argv[1]) : 10000;
    long n = 0, sum = 0;
    mutirao_bytes state;
    int there;
    check(mutirao_checkpoint_saved(&state, &there));
    if (there) {
        expect(sscanf(state.data, "%ld %ld", &n, &sum) == 2, "the state is what was saved below");
        mutirao_bytes_delete(&state);
        fprintf(stderr, "goes on at %ld\n", n);
    }
    while (n < last) {
        usleep(10000);
        sum += ++n;
        if (n % 10 == 0) {
            char text[64];
            const int size = snprintf(text, sizeof text, "%ld %ld", n, sum);
            /* It goes on without, and has more to do again if it must begin anew. */
            mutirao_error *error = mutirao_checkpoint_save(text, (size_t)size);
            if (error) fprintf(stderr, "%s\n", mutirao_error_text(error));
            mutirao_error_delete(error);
        }
    }
    printf("%ld\n", sum);
    return 0;
}
