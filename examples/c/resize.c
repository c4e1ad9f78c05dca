/* resize.c - doubles its slots in the middle and halves them again; draws resize.svg.
 *
 * usage: resize [SECONDS]
 *
 * A call here is a nap, so that the picture is clear on any machine. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <time.h>

#include "check.h"
#include "plot.h"

#define NAP_MS 10
#define POINTS_MAX 4096
#define SAMPLE_MS 150

static int nap(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size;
    nanosleep(&(struct timespec){0, NAP_MS * 1000 * 1000}, NULL);
    return mutirao_result_set(result, "rested", 6);
}

static const mutirao_operation operations[] = {{"nap", nap, MUTIRAO_REPEATABLE}};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* The slots at work: those on their way back are no more. */
static size_t held(mutirao_pool *pool)
{
    mutirao_lease_list *leases;
    check(mutirao_leases(pool, &leases));
    size_t ready = 0;
    for (size_t i = 0; i < mutirao_lease_list_count(leases); i++)
        ready += mutirao_lease_list_at(leases, i)->ready != 0;
    mutirao_lease_list_delete(leases);
    return ready;
}

static void resize(mutirao_pool *pool, uint32_t slots)
{
    const mutirao_resize_order order = {MUTIRAO_EXACTLY, slots, MUTIRAO_FINISH, 0};
    check(mutirao_resize(pool, &order));
}

/* Takes what is finished; how many calls that were. */
static size_t take(mutirao_pool *pool)
{
    size_t count = 0;
    for (mutirao_call *call; (call = mutirao_next(pool)); count++) {
        mutirao_bytes result;
        check(mutirao_call_result(call, &result));
        expect(result.size == 6, "it has rested");
        mutirao_bytes_delete(&result);
        mutirao_call_delete(call);
    }
    return count;
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));
    const double seconds = argc > 1 ? atof(argv[1]) : 6;
    mutirao_pool *pool;
    check(mutirao_open(NULL, &pool));

    uint32_t all = 0;
    mutirao_node_list *nodes;
    check(mutirao_nodes(pool, &nodes));
    for (size_t i = 0; i < mutirao_node_list_count(nodes); i++)
        all += mutirao_node_list_at(nodes, i)->slots_free;
    mutirao_node_list_delete(nodes);
    expect(all >= 2, "there are two slots at least");
    const uint32_t few = all / 2;
    resize(pool, few);

    static plot_point points[POINTS_MAX];
    size_t count = 0, started = 0, finished = 0, before = 0, most = 0;
    int phase = 0;
    const double began = now();
    double sampled = began;
    while (now() - began < seconds || finished < started) {
        const double elapsed = now() - began;
        for (; elapsed < seconds && started - finished < 4 * all; started++) {
            mutirao_call *call;
            check(mutirao_call_start(pool, "nap", NULL, 0, NULL, &call));
        }
        if (phase < 2 && elapsed > (phase + 1) * seconds / 3) resize(pool, ++phase == 1 ? 2 * few : few);
        struct pollfd event = {mutirao_event_fd(pool), POLLIN, 0};
        poll(&event, 1, 5);
        finished += take(pool);
        if (now() - sampled >= SAMPLE_MS / 1e3 && count < POINTS_MAX) {
            const double time = now();
            const size_t slots = held(pool);
            if (slots > most) most = slots;
            points[count++] = (plot_point){time - began, slots, (finished - before) / (time - sampled)};
            before = finished, sampled = time;
        }
    }
    expect(count > 1, "it ran long enough for a picture");
    char title[128];
    snprintf(title, sizeof title, "%u slots, twice as many, and half of that again: %zu calls", few, finished);
    expect(plot_write("resize.svg", title, points, count) == 0, "resize.svg can be written");
    printf("%zu calls started, %zu finished; at most %zu of %u slots; see resize.svg\n", started, finished, most, all);
    expect(started == finished && most == 2 * few, "it doubled, and no call was lost");
    mutirao_close(pool);
    return 0;
}
