/* grow.c - takes and gives back slots while it runs. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "check.h"

static int whoami(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size;
    return mutirao_result_set(result, "here", 4);
}

static const mutirao_operation operations[] = {{"whoami", whoami, MUTIRAO_REPEATABLE}};

static size_t show_leases(mutirao_pool *pool, const char *when)
{
    mutirao_lease_list *leases;
    check(mutirao_leases(pool, &leases));
    const size_t count = mutirao_lease_list_count(leases);
    printf("%s: %zu leases\n", when, count);
    for (size_t i = 0; i < count; i++) {
        const mutirao_lease *lease = mutirao_lease_list_at(leases, i);
        printf("  on %s%s: %u slot\n", lease->node, lease->local ? " (here)" : "", lease->slots);
    }
    mutirao_lease_list_delete(leases);
    return count;
}

static void compute(mutirao_pool *pool)
{
    mutirao_bytes result;
    check(mutirao_call_wait(pool, "whoami", NULL, 0, &result));
    expect(result.size == 4, "the result has four bytes");
    mutirao_bytes_delete(&result);
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));
    mutirao_options options = MUTIRAO_OPTIONS_INIT;
    options.manual = 1;
    mutirao_pool *pool;
    check(mutirao_open(&options, &pool));

    uint32_t slots = 0;
    mutirao_node_list *nodes;
    check(mutirao_nodes(pool, &nodes));
    for (size_t i = 0; i < mutirao_node_list_count(nodes); i++) {
        const mutirao_node *node = mutirao_node_list_at(nodes, i);
        printf("node %s: %u of %u slots free, %s, confinement %s\n", node->name, node->slots_free,
               node->slots_total, node->arch, node->confinement);
        slots += node->slots_total;
    }
    mutirao_node_list_delete(nodes);
    expect(slots > 0, "the pool has slots");
    expect(show_leases(pool, "at first") == 0, "no slot is taken unasked");

    /* One slot, which there must be. */
    mutirao_request request = MUTIRAO_REQUEST_INIT;
    request.at_least = 1;
    mutirao_lease_list *first;
    check(mutirao_allocate(pool, &request, &first));
    expect(mutirao_lease_list_count(first) == 1, "one lease was granted");
    expect(show_leases(pool, "with one") == 1, "one lease is held");
    compute(pool);

    /* As many as there are, up to eight more; none is all right too. */
    request.count = 8;
    request.at_least = 0;
    mutirao_lease_list *more;
    check(mutirao_allocate(pool, &request, &more));
    expect(show_leases(pool, "grown") == 1 + mutirao_lease_list_count(more), "the new leases came in addition");
    compute(pool);

    /* Too many: then none is kept. */
    request.count = request.at_least = 100000;
    expect_error("100,000 leases:", mutirao_allocate(pool, &request, NULL), MUTIRAO_E_NO_SLOTS);

    /* Give the first back. Work goes on elsewhere if there was more than one. */
    check(mutirao_release(pool, &mutirao_lease_list_at(first, 0)->id, 1));
    expect(show_leases(pool, "shrunk") == mutirao_lease_list_count(more), "the first lease is given back");
    if (mutirao_lease_list_count(more)) compute(pool);

    /* And grow again. A slot is free again when its worker has ended, some milliseconds later. */
    request.count = request.at_least = 1;
    mutirao_error *error;
    for (int tries = 0; (error = mutirao_allocate(pool, &request, NULL)) && tries < 100; tries++) {
        expect(mutirao_error_code(error) == MUTIRAO_E_NO_SLOTS, "the slot is not free yet");
        mutirao_error_delete(error);
        nanosleep(&(struct timespec){0, 20 * 1000 * 1000}, NULL);
    }
    check(error);
    compute(pool);

    mutirao_lease_list_delete(first);
    mutirao_lease_list_delete(more);
    mutirao_close(pool);
    return 0;
}
