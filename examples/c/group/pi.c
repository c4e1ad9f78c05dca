/* pi.c - all processes of a group compute pi together, in steps.
 *
 *     pi [DIGITS]
 *
 * The application file is examples/groups/pi.toml. In each step every process adds up its share of an integral, a
 * reduction joins the shares, and all meet; then twice as many pieces are taken, until the result stands still.
 */
#include <math.h>
#include <stdio.h>

#include "../check.h"

static void add(void *into, const void *from, size_t size, void *context)
{
    (void)size, (void)context;
    *(double *)into += *(const double *)from;
}

int main(int argc, char **argv)
{
    const int digits = argc > 1 ? atoi(argv[1]) : 9;
    double pi = 0, before;
    mutirao_group *group;
    mutirao_place place;
    mutirao_superstep *step;
    mutirao_times times;
    uint64_t pieces = 64;
    check(mutirao_group_open(&group));
    check(mutirao_group_place(group, &place));
    check(mutirao_superstep_begin(group, &step));
    do {
        double share = 0;
        before = pi;
        for (uint64_t i = place.rank; i < pieces; i += place.processes) {
            const double x = ((double)i + 0.5) / (double)pieces;
            share += 4 / (1 + x * x) / (double)pieces;
        }
        mutirao_superstep_exchange(step);
        check(mutirao_group_reduce_all(group, &share, sizeof share, add, NULL));
        check(mutirao_superstep_meet(step));
        pi = share;
        pieces *= 2;
    } while (fabs(pi - before) > pow(10, -digits));
    check(mutirao_superstep_times(step, &times));
    fprintf(stderr, "%u steps; %.1f ms of computing, %.1f of exchange, %.1f of waiting\n", times.steps,
            (double)times.computing_ns / 1e6, (double)times.exchanging_ns / 1e6, (double)times.waiting_ns / 1e6);
    if (place.rank == 0) printf("pi is %.*f\n", digits, pi);
    mutirao_superstep_delete(step);
    check(mutirao_group_close(group));
    return 0;
}
