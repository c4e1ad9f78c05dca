/* What can be found out without a node: wrong arguments, and that there is no node. */
#include <mutirao.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int nothing(const void *arg, size_t size, mutirao_result *result)
{
    (void)arg, (void)size, (void)result;
    return 0;
}

static void fails(int line, mutirao_error *error, int code, const char *word)
{
    const char *text = mutirao_error_text(error);
    if (mutirao_error_code(error) == code && strstr(text, word)) {
        mutirao_error_delete(error);
        return;
    }
    fprintf(stderr, "line %d: error %d, `%s`, is not %d with `%s`\n", line, mutirao_error_code(error), text, code, word);
    exit(1);
}
#define FAILS(error, code, word) fails(__LINE__, error, MUTIRAO_E_##code, word)

static void hold(int line, int holds)
{
    if (holds) return;
    fprintf(stderr, "line %d does not hold\n", line);
    exit(1);
}
#define HOLD(condition) hold(__LINE__, condition)

int main(int argc, char **argv)
{
    /* Tables that are refused, after which a good one is taken, once. */
    const mutirao_operation good[] = {{"a", nothing, 0}, {"b", nothing, MUTIRAO_REPEATABLE}};
    mutirao_operation bad[97] = {{"a", nothing, 0}, {"a", nothing, 0}};
    FAILS(mutirao_init(&argc, &argv, NULL, 1), ARGUMENT, "operations");
    FAILS(mutirao_init(&argc, &argv, bad, 2), ARGUMENT, "`a`");
    bad[1].name = "x/y";
    FAILS(mutirao_init(&argc, &argv, bad, 2), ARGUMENT, "x/y");
    bad[1].name = NULL;
    FAILS(mutirao_init(&argc, &argv, bad, 2), ARGUMENT, "NULL");
    bad[1].name = "b";
    bad[1].function = NULL;
    FAILS(mutirao_init(&argc, &argv, bad, 2), ARGUMENT, "`b` has no function");
    bad[1].function = nothing;
    bad[1].flags = 1u << 31;
    FAILS(mutirao_init(&argc, &argv, bad, 2), ARGUMENT, "flags");
    char names[97][8];
    for (int i = 0; i < 97; i++) {
        snprintf(names[i], sizeof names[i], "n%d", i);
        bad[i].name = names[i];
        bad[i].function = nothing;
        bad[i].flags = 0;
    }
    FAILS(mutirao_init(&argc, &argv, bad, 97), ARGUMENT, "97 operations");
    HOLD(mutirao_init(NULL, NULL, good, 2) == NULL);
    FAILS(mutirao_init(NULL, NULL, good, 2), ARGUMENT, "mutirao_init() was called twice");

    HOLD(strcmp(mutirao_version(), argv[0]) != 0 && strlen(mutirao_version()) >= 5);

    /* No node, and a program that cannot be started as one. */
    mutirao_pool *pool = (mutirao_pool *)&pool, *before = pool;
    mutirao_options options = MUTIRAO_OPTIONS_INIT;
    FAILS(mutirao_open(NULL, &pool), NO_NODE, "/nonexistent/mutirao");
    options.no_embedded = 1;
    FAILS(mutirao_open(&options, &pool), NO_NODE, "mutirao up");
    options.node = "elsewhere";
    FAILS(mutirao_open(&options, &pool), NO_NODE, "elsewhere");
    HOLD(pool == before);

    /* Options that are wrong. */
    FAILS(mutirao_open(&options, NULL), ARGUMENT, "`pool` is NULL");
    options.name = "\xff";
    FAILS(mutirao_open(&options, &pool), ARGUMENT, "options->name");
    options.name = NULL;
    options.library_count = 1;
    FAILS(mutirao_open(&options, &pool), ARGUMENT, "options->libraries");
    options.size = 0;
    FAILS(mutirao_open(&options, &pool), ARGUMENT, "MUTIRAO_..._INIT" + 8);

    /* NULL for everything. */
    mutirao_bytes bytes = {0};
    mutirao_call *call = NULL;
    size_t index = 7;
    FAILS(mutirao_call_wait(NULL, "a", NULL, 0, &bytes), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_call_start(NULL, "a", NULL, 0, NULL, &call), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_call_start_many(NULL, "a", NULL, 0, NULL, &call), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_wait(NULL, NULL, 0), ARGUMENT, "`call` is NULL");
    FAILS(mutirao_wait_any(NULL, &call, 1, 0, &index), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_wait_all(NULL, &call, 1, 0), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_call_result(NULL, &bytes), ARGUMENT, "`call` is NULL");
    FAILS(mutirao_allocate(NULL, NULL, NULL), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_release(NULL, NULL, 0), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_leases(NULL, NULL), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_notes(NULL, &bytes), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_nodes(NULL, NULL), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_plugin_approve(NULL, NULL, "a"), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_plugin_deny(NULL, NULL, "a"), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_kill(NULL, "a"), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_admin_grant(NULL, "a", 1, 1), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_admin_insert(NULL, "a", 1), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_admin_remove(NULL, "a"), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_charter_revoke(NULL, "a", NULL), ARGUMENT, "`pool` is NULL");
    FAILS(mutirao_charter_restore(NULL, "a"), ARGUMENT, "`pool` is NULL");
    HOLD(index == 7 && call == NULL && bytes.data == NULL);
    HOLD(mutirao_event_fd(NULL) == -1 && mutirao_next(NULL) == NULL);
    HOLD(!mutirao_call_finished(NULL) && !mutirao_call_context(NULL) && !*mutirao_call_node(NULL));
    HOLD(!mutirao_error_code(NULL) && !mutirao_error_operation_code(NULL));
    HOLD(!*mutirao_error_text(NULL) && !*mutirao_error_node(NULL));
    HOLD(!mutirao_lease_list_count(NULL) && !mutirao_lease_list_at(NULL, 0));
    HOLD(!mutirao_node_list_count(NULL) && !mutirao_node_list_at(NULL, 0));
    HOLD(mutirao_result_set(NULL, "", 0) && !mutirao_result_reserve(NULL, 1) && mutirao_result_fail(NULL, 1, ""));
    mutirao_error_delete(NULL);
    mutirao_bytes_delete(NULL);
    mutirao_bytes_delete(&bytes);
    mutirao_lease_list_delete(NULL);
    mutirao_node_list_delete(NULL);
    mutirao_call_cancel(NULL);
    mutirao_call_delete(NULL);
    mutirao_close(NULL);
    return 0;
}
