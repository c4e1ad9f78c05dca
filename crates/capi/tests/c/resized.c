/* A program that is told to grow and to shrink, by the command line that its argument names. */
#define _POSIX_C_SOURCE 200809L
#include <string.h>
#include <time.h>

#include "../../../../examples/c/check.h"

static int nap(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size;
    nanosleep(&(struct timespec){0, 5 * 1000 * 1000}, NULL);
    return mutirao_result_set(result, "rested", 6);
}

/* Not to be repeated: each that is lost would show. */
static const mutirao_operation operations[] = {{"nap", nap, 0}};

static const char *command_line;
static char app[64];

static size_t held(mutirao_pool *pool)
{
    mutirao_lease_list *leases;
    check(mutirao_leases(pool, &leases));
    const size_t count = mutirao_lease_list_count(leases);
    mutirao_lease_list_delete(leases);
    return count;
}

static void compute(mutirao_pool *pool)
{
    mutirao_bytes result;
    check(mutirao_call_wait(pool, "nap", NULL, 0, &result));
    mutirao_bytes_delete(&result);
}

/* Computes until so many leases are held. */
static void until(mutirao_pool *pool, size_t slots)
{
    for (int tries = 0; held(pool) != slots; tries++) {
        expect(tries < 4000, "it has the size it was told");
        compute(pool);
    }
    printf("%zu slots\n", slots);
}

static void say(const char *order)
{
    char line[1024];
    snprintf(line, sizeof line, "'%s' %s", command_line, order);
    if (strchr(order, '%')) {
        char told[512];
        snprintf(told, sizeof told, order, app);
        snprintf(line, sizeof line, "'%s' %s", command_line, told);
    }
    expect(system(line) == 0, line);
}

static mutirao_resize_order heard;

static void wanted(const mutirao_resize_order *order, void *context)
{
    *(mutirao_resize_order *)context = *order;
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));
    expect(argc == 2, "the command line is named");
    command_line = argv[1];
    mutirao_options options = MUTIRAO_OPTIONS_INIT;
    options.manual = 1;
    mutirao_pool *pool;
    check(mutirao_open(&options, &pool));
    mutirao_request request = MUTIRAO_REQUEST_INIT;
    request.at_least = 1;
    check(mutirao_allocate(pool, &request, NULL));

    /* Its id, as the command line tells it. */
    FILE *apps = NULL;
    char line[1024];
    snprintf(line, sizeof line, "'%s' apps --output json | sed -n 's/.*\"id\": \"\\([0-9a-f]*\\)\".*/\\1/p'",
             command_line);
    apps = popen(line, "r");
    expect(apps && fgets(app, sizeof app, apps), "it is listed");
    pclose(apps);
    app[strcspn(app, "\n")] = 0;

    mutirao_call *calls[200];
    for (int i = 0; i < 200; i++) check(mutirao_call_start(pool, "nap", NULL, 0, NULL, &calls[i]));
    say("grow %s 2");
    until(pool, 3);
    say("shrink %s --to 1");
    until(pool, 1);
    say("grow %s --to 4");
    until(pool, 4);
    say("shrink %s 2 --now");
    until(pool, 2);

    /* From now on it decides for itself. */
    check(mutirao_on_resize(pool, wanted, &heard));
    say("grow %s 2");
    for (int tries = 0; heard.slots == 0; tries++) {
        expect(tries < 4000, "the order is heard of");
        compute(pool);
    }
    expect(heard.size == MUTIRAO_MORE && heard.slots == 2, "it is the order that was given");
    expect(held(pool) == 2, "and nothing else has happened");
    check(mutirao_resize(pool, &heard));
    /* It gets what is free, and slots just given back may not be yet. */
    for (int tries = 0; held(pool) < 4; tries++) {
        const mutirao_resize_order all = {MUTIRAO_EXACTLY, 4, MUTIRAO_FINISH, 0};
        if (tries % 50 == 49) check(mutirao_resize(pool, &all));
        expect(tries < 4000, "it has the size it was told");
        compute(pool);
    }
    until(pool, 4);

    /* A node that is drained gives back what it lent, and lends again. */
    check(mutirao_drain(pool, "n2", -1));
    until(pool, 2);
    check(mutirao_resume(pool, "n2"));
    check(mutirao_reclaim(pool, "n2", 1, 100, 1));
    const mutirao_resize_order own = {MUTIRAO_OWN, 0, MUTIRAO_FINISH, 0};
    check(mutirao_app_resize(pool, app, &own));

    for (int i = 0; i < 200; i++) {
        mutirao_bytes result;
        check(mutirao_wait(pool, calls[i], -1));
        check(mutirao_call_result(calls[i], &result));
        mutirao_bytes_delete(&result);
        mutirao_call_delete(calls[i]);
    }
    mutirao_close(pool);
    printf("every call was answered\n");
    return 0;
}
