/* mutirao.h - the C interface of Mutirão.
 *
 * Your program is the plugin: the same executable that asks for work also does it, on every node
 * that lends it a slot. Give mutirao_init() the table of your operations as the first statement of
 * main(); on a lent slot it never returns from there and serves calls instead.
 *
 *     static int square(const void *arg, size_t len, mutirao_result *result)
 *     {
 *         int n;
 *         if (len != sizeof n) return mutirao_result_fail(result, 1, "an int is expected");
 *         memcpy(&n, arg, sizeof n);
 *         n *= n;
 *         return mutirao_result_set(result, &n, sizeof n);
 *     }
 *     static const mutirao_operation operations[] = {{"square", square, MUTIRAO_REPEATABLE}};
 *
 *     int main(int argc, char **argv)
 *     {
 *         mutirao_error *error = mutirao_init(&argc, &argv, operations, 1);
 *         ...
 *
 * Conventions
 *   - Functions that can fail return an error object; NULL is success. Free it with
 *     mutirao_error_delete(). When a function fails, what its output pointers point to is unchanged.
 *   - What a function hands out through a pointer belongs to the caller, who frees it with the
 *     matching ..._delete() or ..._close().
 *   - Lists belong to their list object and live as long as it.
 *   - All functions but mutirao_init() and ..._close() may be called from any thread, several at
 *     once; but not in a process forked from the one that opened the pool or the group.
 *   - Structures that the caller fills begin with `size`: set it to sizeof the structure (the
 *     ..._INIT macros do), so that later versions may add members.
 *   - Texts are UTF-8 and end with a zero byte. Times are milliseconds; -1 waits without limit.
 *
 * Exceptions of C++ must not leave a function that is given to the library: they end the process,
 * on a lent slot the worker.
 *
 * Build:            cc program.c $(pkg-config --cflags --libs mutirao)
 * With everything   cc program.c $(pkg-config --cflags --libs mutirao-static)
 * in the program:
 */
#ifndef MUTIRAO_H
#define MUTIRAO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MUTIRAO_VERSION_MAJOR 0
#define MUTIRAO_VERSION_MINOR 1
#define MUTIRAO_VERSION_PATCH 0

/* ------------------------------------------------------------------------------------------------
 * Common routines: versions, errors, data, operations
 * --------------------------------------------------------------------------------------------- */

/* The version of the library that is linked, such as "0.1.0". Never NULL; not to be freed. */
const char *mutirao_version(void);

/* What went wrong, as a number that programs may rely on. */
typedef enum mutirao_code {
    MUTIRAO_E_ARGUMENT = 1,           /* a parameter is not usable, the text says which          */
    MUTIRAO_E_NO_NODE = 2,            /* no daemon can be reached here and none could be started */
    MUTIRAO_E_REFUSED = 3,            /* the local node refuses this program                     */
    MUTIRAO_E_NODE_LOST = 4,          /* the local node went away and did not come back          */
    MUTIRAO_E_NO_SLOTS = 5,           /* fewer slots are to be had than are needed at least      */
    MUTIRAO_E_PLUGIN = 6,             /* this program cannot be a plugin, the text says why      */
    MUTIRAO_E_NO_OPERATION = 7,       /* the program has no operation of that name               */
    MUTIRAO_E_TOO_LARGE = 8,          /* an argument or a result is over the limit               */
    MUTIRAO_E_OPERATION = 9,          /* the operation itself failed, the code is its own        */
    MUTIRAO_E_WORKER_ENDED = 10,      /* the worker died while it ran the call                   */
    MUTIRAO_E_OUT_OF_MEMORY = 11,     /* the worker needed more memory than it may have          */
    MUTIRAO_E_TIME_LIMIT = 12,        /* the call's time limit passed                            */
    MUTIRAO_E_CANCELLED = 13,         /* the call was cancelled                                  */
    MUTIRAO_E_OUTCOME_UNKNOWN = 14,   /* the call was lost after it was sent; it may have run    */
    MUTIRAO_E_TIMEOUT = 15,           /* the wait was over first; what was waited for goes on    */
    MUTIRAO_E_NOT_PERMITTED = 16,     /* every node that an order concerns refuses it            */
    MUTIRAO_E_CLOSED = 17,            /* the pool is closed, or lost its node during the call    */
    MUTIRAO_E_INTERNAL = 18,          /* a fault of the library or the node; please report it    */
    MUTIRAO_E_SYSTEM = 19,            /* the system refuses something, such as a descriptor      */
    MUTIRAO_E_NO_GROUP = 20,          /* `mutirao group run` has not started this process        */
    MUTIRAO_E_MODE = 21,              /* one end of a channel is synchronous, the other is not   */
    MUTIRAO_E_ENDED = 22,             /* every process at the other end of a channel has left    */
    MUTIRAO_E_PEER_LOST = 23,         /* a process at the other end, or the group, is lost       */
    MUTIRAO_E_BAG = 24,               /* a bag cannot be made, or its keeper has ended           */
    MUTIRAO_E_CHECKPOINT = 25         /* the state of a task is not kept; the task may go on     */
} mutirao_code;

typedef struct mutirao_error mutirao_error;

/* One of mutirao_code; later versions may have more. 0 for NULL. */
int mutirao_error_code(const mutirao_error *error);
/* What the operation gave to mutirao_result_fail(), for MUTIRAO_E_OPERATION; otherwise 0. */
int mutirao_error_operation_code(const mutirao_error *error);
/* What happened, to whom, and what to do. Lives as long as the error. */
const char *mutirao_error_text(const mutirao_error *error);
/* The node it happened on; "" where none is concerned. Lives as long as the error. */
const char *mutirao_error_node(const mutirao_error *error);
/* Frees an error. NULL is allowed. */
void mutirao_error_delete(mutirao_error *error);

/* Bytes handed out by the library, aligned for any type. A zero byte follows them that `size` does not
 * count, so `data` is never NULL and may be used as a text. Free them with mutirao_bytes_delete(). */
typedef struct mutirao_bytes {
    void *data;
    size_t size;
} mutirao_bytes;

/* Bytes to be filled, zero at first. */
mutirao_error *mutirao_bytes_new(size_t size, mutirao_bytes *bytes);
/* Frees the bytes and sets the members to zero. NULL, and members that are zero, are allowed. */
void mutirao_bytes_delete(mutirao_bytes *bytes);

/* The result of a call in the making; valid until the operation returns. */
typedef struct mutirao_result mutirao_result;

/* A function that runs on lent slots. `arg` is aligned for any type and never NULL.
 * Returns what the mutirao_result_... functions return; 0 without any of them is an empty result. Any
 * other number makes the call fail, with its absolute value as the operation's code. */
typedef int (*mutirao_function)(const void *arg, size_t arg_size, mutirao_result *result);

/* Flags of an operation. */
#define MUTIRAO_REPEATABLE 1u /* may run more than once for one call: lost calls run again elsewhere */

typedef struct mutirao_operation {
    const char *name;          /* 1 to 63 bytes, no '/' and no control characters */
    mutirao_function function;
    unsigned flags;            /* MUTIRAO_REPEATABLE or 0 */
} mutirao_operation;

/* Most bytes of an argument, and of a result. */
#define MUTIRAO_CALL_BYTES_MAX (64u * 1024 * 1024)

/* Copies `size` bytes as the result, in place of an earlier one. Returns 0, or non-zero if they are
 * over the limit; the call then fails with MUTIRAO_E_TOO_LARGE unless another result follows. */
int mutirao_result_set(mutirao_result *result, const void *data, size_t size);
/* Room for a result of `size` bytes, aligned for any type, zero at first, to be filled before the
 * operation returns, without a copy. NULL if it is over the limit, as above. */
void *mutirao_result_reserve(mutirao_result *result, size_t size);
/* Makes the call fail with the operation's own code (1 to 2^31-1) and a text for people of at most
 * 4,096 bytes. Whatever else the operation does, the first failure counts. Returns non-zero, to be
 * returned. */
int mutirao_result_fail(mutirao_result *result, int code, const char *text);

/* To be the first statement of main(), before any thread is started. In a program started by a user it
 * keeps the operations and returns; started by a node as a worker it serves calls and never returns.
 * The table is copied; the functions must stay. argc and argv may be NULL; later versions may take
 * arguments of their own away. At most 96 operations. */
mutirao_error *mutirao_init(int *argc, char ***argv, const mutirao_operation *operations, size_t count);

/* ------------------------------------------------------------------------------------------------
 * Application routines: pool, leases, calls
 * --------------------------------------------------------------------------------------------- */

typedef struct mutirao_pool mutirao_pool;

typedef struct mutirao_options {
    size_t size;
    const char *name;              /* of the application, for people; NULL: the program's name          */
    const char *node;              /* name of the node to use, if several run on this machine; NULL: the usual */
    const char *const *libraries;  /* shared objects that travel with the program; NULL for none        */
    size_t library_count;
    uint32_t slots_max;            /* most slots taken unasked; 0: as many as are of use, at most 1,024  */
    int manual;                    /* non-zero: slots only by mutirao_allocate()                         */
    int no_embedded;               /* non-zero: fail when no daemon runs, rather than start a private one */
    uint32_t slots_min;            /* slots held in any case, where they are to be had                   */
    uint32_t idle_ms;              /* a slot idle for so long is given back; 0: 3,000                    */
    uint32_t reserved;             /* 0                                                                  */
} mutirao_options;

#define MUTIRAO_OPTIONS_INIT {sizeof(mutirao_options), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0}

/* Opens the pool through the daemon of this machine. With none running it brings up a private node
 * on this machine's cores that ends with the program. `options` may be NULL. Unless `manual` is
 * set, calls take slots as they need them and give them back when idle. */
mutirao_error *mutirao_open(const mutirao_options *options, mutirao_pool **pool);

/* Gives back every slot, ends unfinished calls, waits until `done` was run for those that have one,
 * and frees the pool. NULL is allowed. No other thread may use the pool any more. Calls stay until they
 * are deleted; those that were not finished have failed with MUTIRAO_E_CLOSED. */
void mutirao_close(mutirao_pool *pool);

typedef enum mutirao_layout {
    MUTIRAO_NEAR = 0,   /* near this machine, many on one node */
    MUTIRAO_SPREAD = 1  /* at most one lease a node            */
} mutirao_layout;

/* So much of a resource that owners have named, such as "gpu". */
typedef struct mutirao_resource {
    const char *name;
    uint32_t amount;
} mutirao_resource;

/* Set it to MUTIRAO_REQUEST_INIT, then what you need. What cannot be had is refused in words: see the
 * error's text and mutirao_notes(). */
typedef struct mutirao_request {
    size_t size;
    uint32_t count;        /* leases wanted; each is one slot, or a whole node if exclusive    */
    uint32_t at_least;     /* fewer are of no use: none is kept, and MUTIRAO_E_NO_SLOTS results;
                              0: even none at all is success                               */
    uint32_t memory_mib;   /* memory set aside for each; 0: none in particular                  */
    mutirao_layout layout;
    int exclusive;         /* non-zero: whole nodes with nobody else on them                    */
    uint32_t cores;        /* slots of each, all on one node; 0 is 1                            */
    const char *arch;      /* the only architecture that will do, such as "x86_64"; NULL: any   */
    const char *below;     /* only the node of this name and those below it in the tree; or NULL */
    const char *const *labels;  /* labels that every lender must have                          */
    size_t label_count;
    const char *const *without; /* labels that no lender may have                              */
    size_t without_count;
    const mutirao_resource *resources; /* in each; the worker reads which instances they are
                              from its environment, such as MUTIRAO_RESOURCE_GPU=0,3            */
    size_t resource_count;
    int hops;              /* edges of the tree the search may go; -1: as far as need be        */
    uint32_t reserved;     /* 0                                                                 */
    int wait;              /* non-zero: wait until at_least (or one) can be had at once          */
    int priority;          /* -128 to 127; before those who wait with a lower one                */
    uint32_t patience_s;   /* wait no longer than this; 0: until served                          */
    uint32_t limit_s;      /* the leases end after this; 0: no limit. Short ones may run while
                              slots gather for a larger request                             */
} mutirao_request;

#define MUTIRAO_REQUEST_INIT \
    {sizeof(mutirao_request), 1, 0, 0, MUTIRAO_NEAR, 0, 0, NULL, NULL, NULL, 0, NULL, 0, NULL, 0, -1, 0, \
     0, 0, 0, 0}

/* A slot that is held. */
typedef struct mutirao_lease {
    uint64_t id;        /* names it in this pool              */
    const char *node;   /* the lender's name                  */
    uint32_t slots;
    int local;          /* non-zero: on this machine          */
    int ready;          /* non-zero: its worker serves calls  */
} mutirao_lease;

typedef struct mutirao_lease_list mutirao_lease_list;

size_t mutirao_lease_list_count(const mutirao_lease_list *list);
/* NULL beyond the end. */
const mutirao_lease *mutirao_lease_list_at(const mutirao_lease_list *list, size_t index);
void mutirao_lease_list_delete(mutirao_lease_list *list);

/* Takes further slots; takes about two seconds where they are not to be had, longer only with `wait`. `granted` may be NULL; it
 * lists the new leases only. Getting fewer than `count` but `at_least` is success. From now on slots
 * are taken and given back by hand only, as with `manual`. */
mutirao_error *mutirao_allocate(mutirao_pool *pool, const mutirao_request *request,
                                mutirao_lease_list **granted);
/* Gives leases back. Calls that run there and are repeatable, or have not begun, go elsewhere; others
 * fail with MUTIRAO_E_OUTCOME_UNKNOWN. Ids of leases that are no more are passed over. */
mutirao_error *mutirao_release(mutirao_pool *pool, const uint64_t *ids, size_t count);
/* What becomes of calls that run on leases which are given back. Those that have not begun go elsewhere. */
typedef enum mutirao_leave {
    MUTIRAO_FINISH = 0,  /* they finish first                                                          */
    MUTIRAO_RERUN = 1,   /* repeatable ones run again elsewhere, at once; others finish first           */
    MUTIRAO_ABANDON = 2  /* repeatable ones run again; others fail with MUTIRAO_E_OUTCOME_UNKNOWN        */
} mutirao_leave;

typedef enum mutirao_size {
    MUTIRAO_MORE = 0,    /* so many slots more than are held */
    MUTIRAO_FEWER = 1,   /* so many fewer                    */
    MUTIRAO_EXACTLY = 2, /* so many                          */
    MUTIRAO_OWN = 3      /* as the program wants: earlier orders count no more */
} mutirao_size;

typedef struct mutirao_resize_order {
    mutirao_size size;
    uint32_t slots;
    mutirao_leave leave; /* for those that are given back */
    uint32_t reserved;   /* 0                             */
} mutirao_resize_order;

/* Grows or shrinks. Returns at once: slots that are missing come when they are to be had, and those too many
 * go when what runs there allows. Without `manual` the size becomes a limit for the library, which neither
 * grows nor shrinks beyond it until it is told otherwise. */
mutirao_error *mutirao_resize(mutirao_pool *pool, const mutirao_resize_order *order);
/* Gives leases back, each as soon as what runs there allows. Ids of leases that are no more are passed over. */
mutirao_error *mutirao_retire(mutirao_pool *pool, const uint64_t *ids, size_t count, mutirao_leave leave);

/* Orders to this program to grow or shrink (`mutirao grow`, `mutirao shrink`) are carried out by the library
 * as by mutirao_resize(). With such a function they are not: it is called with each instead, in the way of
 * `mutirao_done` below; it may use the pool, and best returns soon. */
typedef void (*mutirao_resize_wanted)(const mutirao_resize_order *order, void *context);
mutirao_error *mutirao_on_resize(mutirao_pool *pool, mutirao_resize_wanted function, void *context);

/* The leases held now. */
mutirao_error *mutirao_leases(mutirao_pool *pool, mutirao_lease_list **leases);
/* Why nodes that might have lent at the last request did not (policy, approval awaited, architecture, what
 * the pool has at best), a line each. Free it with mutirao_bytes_delete(). */
mutirao_error *mutirao_notes(mutirao_pool *pool, mutirao_bytes *text);

typedef struct mutirao_call mutirao_call;

/* Called once when the call is finished, maybe before mutirao_call_start() returns. All of a pool's are
 * called by one thread of the library, one after another: a slow one delays the others, nothing else.
 * It may use the pool and any call, and delete this one; it must not close the pool. It is not called
 * for a call that was deleted before. */
typedef void (*mutirao_done)(mutirao_call *call, void *context);

typedef struct mutirao_call_options {
    size_t size;
    uint32_t limit_ms;     /* longest run time; 0: none                                        */
    uint32_t reserved;     /* 0                                                                */
    mutirao_done done;     /* NULL: none. A call with `done` is not reported by mutirao_next() */
    void *context;         /* for `done` and mutirao_call_context()                            */
} mutirao_call_options;

#define MUTIRAO_CALL_OPTIONS_INIT {sizeof(mutirao_call_options), 0, 0, NULL, NULL}

/* Calls the operation and waits for its result. `arg` may be NULL if `arg_size` is 0. */
mutirao_error *mutirao_call_wait(mutirao_pool *pool, const char *operation, const void *arg, size_t arg_size,
                                 mutirao_bytes *result);

/* Starts a call. The argument is copied. `options` may be NULL; `call` too if `done` is given, which
 * then has to delete it. Blocks only while a million calls (2^20) are unfinished. */
mutirao_error *mutirao_call_start(mutirao_pool *pool, const char *operation, const void *arg, size_t arg_size,
                                  const mutirao_call_options *options, mutirao_call **call);
/* Starts `count` calls of one operation, the i-th with args[i], which the library neither changes nor
 * frees, and with the same options. If one cannot be started none is; `done` may then have been called
 * for those that were finished already. */
mutirao_error *mutirao_call_start_many(mutirao_pool *pool, const char *operation, const mutirao_bytes *args,
                                       size_t count, const mutirao_call_options *options,
                                       mutirao_call **calls);

/* Non-zero once the call is finished. */
int mutirao_call_finished(const mutirao_call *call);
/* What options gave it. */
void *mutirao_call_context(const mutirao_call *call);
/* The node that computed it, or where it failed; "" before it is finished and where no node was
 * concerned. Lives as long as the call, but is another text once it is finished. */
const char *mutirao_call_node(const mutirao_call *call);

/* Wait until one call, any of them (its index in `index`), or all are finished. Whether they failed
 * is told by mutirao_call_result(). Members of `calls` may be NULL and are passed over; it is an error
 * to wait for any of none. MUTIRAO_E_TIMEOUT when the time is over first. No other thread may delete
 * the calls meanwhile. */
mutirao_error *mutirao_wait(mutirao_pool *pool, mutirao_call *call, int timeout_ms);
mutirao_error *mutirao_wait_any(mutirao_pool *pool, mutirao_call *const *calls, size_t count,
                                int timeout_ms, size_t *index);
mutirao_error *mutirao_wait_all(mutirao_pool *pool, mutirao_call *const *calls, size_t count, int timeout_ms);

/* Takes the result of a finished call, once, or returns its error, as often as asked. */
mutirao_error *mutirao_call_result(mutirao_call *call, mutirao_bytes *result);
/* Ends a call; it finishes with MUTIRAO_E_CANCELLED unless its result was there first. A worker that
 * runs it is killed and replaced. NULL is allowed. */
void mutirao_call_cancel(mutirao_call *call);
/* Frees a call; cancels it if it is not finished. NULL is allowed. mutirao_next() will not report it.
 * `done` will not be called for it, but may be running if it is finished. */
void mutirao_call_delete(mutirao_call *call);

/* For event loops: a descriptor that is readable while mutirao_next() has something to give. It
 * belongs to the pool; do not read from it or close it. */
int mutirao_event_fd(mutirao_pool *pool);
/* A call that has finished, has no `done`, and was not reported here before, in the order in which they
 * finished; NULL if there is none now. Calls that were waited for are reported too, until deleted. */
mutirao_call *mutirao_next(mutirao_pool *pool);

/* ------------------------------------------------------------------------------------------------
 * Administration routines: what is in the pool, and orders to its nodes
 * --------------------------------------------------------------------------------------------- */

typedef struct mutirao_node {
    const char *name;
    const char *id;          /* 64 hexadecimal digits     */
    const char *parent;      /* "" for a root             */
    uint32_t slots_total;
    uint32_t slots_free;
    double load;             /* average over one minute   */
    uint64_t up_s;           /* seconds since it started  */
    const char *state;       /* "up", "draining", "drained", "leaving" */
    const char *arch;
    const char *confinement; /* "full", "files", "basic", "none" */
} mutirao_node;

typedef struct mutirao_node_list mutirao_node_list;

/* The nodes of the pool. */
mutirao_error *mutirao_nodes(mutirao_pool *pool, mutirao_node_list **nodes);
size_t mutirao_node_list_count(const mutirao_node_list *list);
/* NULL beyond the end. */
const mutirao_node *mutirao_node_list_at(const mutirao_node_list *list, size_t index);
void mutirao_node_list_delete(mutirao_node_list *list);

/* Orders. Success if one node carried the order out. MUTIRAO_E_NOT_PERMITTED if nodes refused it, the
 * text says why; MUTIRAO_E_ARGUMENT if no node knows what is named.
 *
 * Approves or denies a plugin (by name or beginning of its id) on the node named (by name or beginning
 * of its id), or on every node that the user may decide for when `node` is NULL. */
mutirao_error *mutirao_plugin_approve(mutirao_pool *pool, const char *node, const char *plugin);
mutirao_error *mutirao_plugin_deny(mutirao_pool *pool, const char *node, const char *plugin);
/* Lets a node lend no more: applications are asked to give back what they hold there, which they do as their
 * running calls finish; after `grace_ms` (-1: never) it ends in any case. Lasts until mutirao_resume(), over
 * restarts too. `node` may be NULL for this machine's, here and below. */
mutirao_error *mutirao_drain(mutirao_pool *pool, const char *node, int grace_ms);
/* Lets a node lend again, after mutirao_drain() or mutirao_reclaim(). */
mutirao_error *mutirao_resume(mutirao_pool *pool, const char *node);
/* Takes slots of a node (0: all) back from those they are lent to, after a grace, and keeps them for its owner
 * for so many seconds (0: until mutirao_resume()). */
mutirao_error *mutirao_reclaim(mutirao_pool *pool, const char *node, uint32_t slots, uint32_t grace_ms,
                               uint32_t for_s);
/* Tells an application (beginning of its id) to grow or shrink. */
mutirao_error *mutirao_app_resize(mutirao_pool *pool, const char *app, const mutirao_resize_order *order);
/* Ends an application (beginning of its id) or one worker ("NODE/NUMBER"). */
mutirao_error *mutirao_kill(mutirao_pool *pool, const char *what);

/* The charter: what the administrators have set for the whole pool. These make a new version of it, which
 * the node of this machine signs where an administrator's key lies in its directory, and which all nodes
 * that can be reached keep to within seconds. MUTIRAO_E_NOT_PERMITTED if it cannot be made, the text says
 * why; nothing has changed then.
 *
 * Where admission is by administrators: let an application that runs (beginning of its id, 4 digits or
 * more), or all applications of a user (of the pool, or "NAME@NODE"), hold up to `slots` slots, for so
 * many seconds or until removed. */
mutirao_error *mutirao_admin_grant(mutirao_pool *pool, const char *who, uint32_t slots, uint32_t seconds);
mutirao_error *mutirao_admin_insert(mutirao_pool *pool, const char *who, uint32_t slots);
/* Takes the right away; the leases held under it end. */
mutirao_error *mutirao_admin_remove(mutirao_pool *pool, const char *who);
/* Lets the node and the user of this name (or "NAME@NODE", or 16 or more digits of an id) in no longer:
 * links are closed, leases end. `reason` is what they are told; it may be NULL. */
mutirao_error *mutirao_charter_revoke(mutirao_pool *pool, const char *who, const char *reason);
/* Lets them in again. */
mutirao_error *mutirao_charter_restore(mutirao_pool *pool, const char *who);

/* Changes of the tree, for administrators. Nodes are named by name or beginning of their id. A change that
 * is refused leaves the tree as it was: MUTIRAO_E_ARGUMENT for an unknown node or a cycle,
 * MUTIRAO_E_NOT_PERMITTED otherwise.
 *
 * Takes `child`, a node of the pool or "host:port" of one that has joined no tree yet, under `parent`. */
mutirao_error *mutirao_tree_add(mutirao_pool *pool, const char *parent, const char *child);
/* Takes a node out of the pool; its children go to its parent. Not 0 in `drain`: once what it lent has come
 * back. 0: at once; its holders run elsewhere what may run again. */
mutirao_error *mutirao_tree_remove(mutirao_pool *pool, const char *node, int drain);
/* Moves a node, with all below it, under another. Work there is not disturbed. */
mutirao_error *mutirao_tree_move(mutirao_pool *pool, const char *node, const char *parent);

/* ------------------------------------------------------------------------------------------------
 * Bags: tasks that finish whatever happens
 * --------------------------------------------------------------------------------------------- */

/* A bag of calls of this program's operations. Its keeper, a process of its own, leases slots, runs the
 * tasks and writes everything into a journal: a node that is lost costs no more than what ran there. A
 * task may run more than once; its result counts once. Used by one thread at a time. */
typedef struct mutirao_bag mutirao_bag;

typedef struct mutirao_bag_options {
    size_t size;
    const char *name;      /* for people; NULL: that of the program's file                       */
    uint32_t slots_max;    /* most slots held at once; 0: 1024                                    */
    uint32_t retries;      /* how often a task that failed is tried again                         */
    uint32_t limit_ms;     /* longest run of an attempt; 0: none                                  */
    int lives_on;          /* not 0: the bag goes on when the program ends, and stays             */
    const char *const *libraries;  /* shared objects that travel with the program; NULL for none  */
    size_t library_count;
    int saves_state;       /* not 0: tasks may save state, see mutirao_checkpoint_save()          */
} mutirao_bag_options;

#define MUTIRAO_BAG_OPTIONS_INIT {sizeof(mutirao_bag_options), NULL, 0, 0, 0, 0, NULL, 0, 0}

/* Makes a bag and starts its keeper, the program `mutirao`. `options` may be NULL. */
mutirao_error *mutirao_bag_open(const mutirao_bag_options *options, mutirao_bag **bag);
/* Opens a bag that lives on, on the machine where it was made: all that has ended is told again, and more
 * can be pushed. Whoever had it open before has it no more. */
mutirao_error *mutirao_bag_attach(uint32_t number, mutirao_bag **bag);
/* The bag's number, by which `mutirao bag` knows it. */
uint32_t mutirao_bag_number(const mutirao_bag *bag);

/* Pushes a call of the operation. `arg` has at most 64 KiB, where each byte beyond 127 counts twice; it
 * may be NULL if `arg_size` is 0. `task`, if not NULL, gets its number: tasks are numbered from 0 as they
 * are pushed. Waits while the keeper has enough to do. */
mutirao_error *mutirao_bag_push(mutirao_bag *bag, const char *operation, const void *arg, size_t arg_size,
                                uint64_t *task);

/* A task that has come to its end. */
typedef struct mutirao_bag_end {
    uint64_t task;
    mutirao_bytes result;  /* free it with mutirao_bytes_delete(); zero where there is an error   */
    mutirao_error *error;  /* why there is no result, to be freed with mutirao_error_delete(); or NULL */
} mutirao_bag_end;

/* Waits for the next end. `more` is 0 when all that was pushed has been told; `end` is unchanged then.
 * What is not asked for stays with the keeper, on its disk. */
mutirao_error *mutirao_bag_next(mutirao_bag *bag, mutirao_bag_end *end, int *more);
/* Lets what has not ended not be done: it ends with MUTIRAO_E_CANCELLED. */
mutirao_error *mutirao_bag_cancel(mutirao_bag *bag);
/* Lets go of a bag. One that does not live on ends, and nothing is left of it. NULL is allowed. */
void mutirao_bag_close(mutirao_bag *bag);

/* In a task of a bag: a command with a `checkpoint` in the bag file, or an operation in a bag that says so.
 *
 * Saves state, at most 60 MiB less the small input files of the task. When this returns without an error, the state
 * is kept: it outlives this process and its machine, and the task's next attempt begins with it, or with that
 * of an attempt for which the task has run longer. On an error the task may go on. */
mutirao_error *mutirao_checkpoint_save(const void *state, size_t size);
/* What this task has saved, in an earlier attempt or in this one. `there` is 0 if nothing was, and `state`
 * then unchanged; otherwise free it with mutirao_bytes_delete(). */
mutirao_error *mutirao_checkpoint_saved(mutirao_bytes *state, int *there);

/* ------------------------------------------------------------------------------------------------
 * Groups: processes that exchange messages over channels
 *
 * `mutirao group run FILE` starts the processes that an application file names, and joins them by channels. A
 * process needs neither mutirao_init() nor a pool; spd.h is a smaller interface to the same channels. A program
 * uses one of the two.
 *
 * A channel is used in one of two ways at both of its ends: synchronously (send) or asynchronously (post);
 * receiving follows the sender. MUTIRAO_E_MODE at both ends if they differ. Each message is received by exactly one
 * process, and what one process sends over a channel is received in that order. MUTIRAO_E_ENDED when every process
 * at the other end has left the group, MUTIRAO_E_PEER_LOST when one of them is lost.
 * --------------------------------------------------------------------------------------------- */

typedef struct mutirao_group mutirao_group;
/* Belongs to its group and lives as long as it. */
typedef struct mutirao_channel mutirao_channel;

typedef struct mutirao_place {
    const char *group;   /* its name; lives as long as the group, as does the next */
    const char *program; /* the program this process is an instance of             */
    uint32_t instance;   /* which one, from 0                                      */
    uint32_t rank;       /* number of the process in the group, from 0             */
    uint32_t processes;  /* of the group                                           */
    uint32_t inputs;     /* channels of this process                               */
    uint32_t outputs;
    uint32_t reserved;
} mutirao_place;

/* Takes this process's place in its group: first of all, once. */
mutirao_error *mutirao_group_open(mutirao_group **group);
/* Leaves the group: waits until all that was posted has been received, then tells the other ends that no more
 * comes. Frees the group and its channels, also when it fails: then messages may be lost. A process that ends without
 * it may lose what it posted last. NULL is allowed. No other thread may use the group any more. */
mutirao_error *mutirao_group_close(mutirao_group *group);
/* Who this process is. */
mutirao_error *mutirao_group_place(const mutirao_group *group, mutirao_place *place);
/* A channel by its number in the application file; input and output channels are numbered apart, each from 0. */
mutirao_error *mutirao_group_input(const mutirao_group *group, uint32_t number, mutirao_channel **channel);
mutirao_error *mutirao_group_output(const mutirao_group *group, uint32_t number, mutirao_channel **channel);

/* Sends a message from where it lies, without a copy here, and waits until it is received. After MUTIRAO_E_TIMEOUT it
 * is on its way all the same and will be received in its turn; `data` is not used any more then. A message may
 * have 2^40 bytes. */
mutirao_error *mutirao_channel_send(mutirao_channel *output, const void *data, size_t size, int timeout_ms);
/* Stores a copy of a message until it is received. Waits only while as much is stored as the application file
 * allows; after MUTIRAO_E_TIMEOUT nothing was stored. */
mutirao_error *mutirao_channel_post(mutirao_channel *output, const void *data, size_t size, int timeout_ms);
/* The same without a copy: the message, made by mutirao_bytes_new() or received, becomes the library's, and its
 * members zero. When it fails the message is the caller's, as it was. */
mutirao_error *mutirao_channel_post_bytes(mutirao_channel *output, mutirao_bytes *message, int timeout_ms);
/* Messages that were sent and not received as far as is known here, and what storing them takes. Either may be NULL. */
mutirao_error *mutirao_channel_stored(const mutirao_channel *output, size_t *messages, uint64_t *bytes);

/* Receives the next message, in the memory it came into. MUTIRAO_E_TIMEOUT if none comes in time; 0 does not wait. */
mutirao_error *mutirao_channel_receive(mutirao_channel *input, int timeout_ms, mutirao_bytes *message);
/* Receives into room of one's own; the message is copied once at most on this side. `size` may be NULL.
 * MUTIRAO_E_TOO_LARGE if it does not fit: then it stays, and `data` may have been written to. */
mutirao_error *mutirao_channel_receive_into(mutirao_channel *input, void *data, size_t room, int timeout_ms,
                                            size_t *size);
/* Waits until one of several inputs of a group has a message; its index. Members may be NULL and are passed over.
 * MUTIRAO_E_ENDED when all have ended. Where a channel has several receivers, a message that was asked for meanwhile
 * is this process's. */
mutirao_error *mutirao_channel_select(mutirao_channel *const *inputs, size_t count, int timeout_ms, size_t *index);

/* For event loops: a descriptor that is readable when a channel that was armed may have something. It belongs to
 * the group; do not read from it or close it. -1 if there can be none. */
int mutirao_group_event_fd(const mutirao_group *group);
/* To be called each time before waiting for the descriptor: asks that it become readable once one of these inputs
 * has a message, or an error to tell. `ready` is then 0; otherwise one has already: look, and do not wait. Leave out (or
 * make NULL) those that have ended. Channels that other threads use at this moment are left to them. */
mutirao_error *mutirao_channel_arm(mutirao_channel *const *inputs, size_t count, int *ready);

/* Collectives, for groups whose file says `collectives = true`: all processes call the same ones in the same order, with
 * the same size and root. MUTIRAO_E_ARGUMENT where they do not agree; some may then have what others lack.
 *
 * Returns when all processes have come here. */
mutirao_error *mutirao_group_barrier(mutirao_group *group);
/* Gives the `data` of the rank `root` to all. */
mutirao_error *mutirao_group_broadcast(mutirao_group *group, uint32_t root, void *data, size_t size);
/* `blocks` of the rank `root`, of `size` bytes each, one for each rank: gives each its own. */
mutirao_error *mutirao_group_scatter(mutirao_group *group, uint32_t root, const void *blocks, size_t size,
                                     void *block);
/* Brings the blocks of all ranks to `blocks` of the rank `root`, in order of their ranks; elsewhere it may be NULL. */
mutirao_error *mutirao_group_gather(mutirao_group *group, uint32_t root, const void *block, size_t size,
                                    void *blocks);
/* Gives each rank its block of those of every rank: `received` is in order of the ranks that gave them. */
mutirao_error *mutirao_group_all_to_all(mutirao_group *group, const void *blocks, size_t size, void *received);
/* Adds `from` to `into`, whatever adding is: it must not mind in which order it is applied, nor to which of two
 * first. Both are aligned for any type. */
typedef void (*mutirao_join)(void *into, const void *from, size_t size, void *context);
/* Joins the `data` of all ranks to one at the rank `root`, in its place; elsewhere `data` stays. */
mutirao_error *mutirao_group_reduce(mutirao_group *group, uint32_t root, void *data, size_t size,
                                    mutirao_join join, void *context);
/* The same, for all ranks. */
mutirao_error *mutirao_group_reduce_all(mutirao_group *group, void *data, size_t size, mutirao_join join,
                                        void *context);

/* Programs that go in steps: they compute, exchange messages, and meet. It says where their time goes. For one
 * thread. */
typedef struct mutirao_superstep mutirao_superstep;

typedef struct mutirao_times {
    uint64_t computing_ns;  /* spent by the program itself                       */
    uint64_t exchanging_ns; /* spent after mutirao_superstep_exchange()          */
    uint64_t waiting_ns;    /* spent on waiting for the others, at ends of steps */
    uint32_t steps;         /* that were finished                                */
    uint32_t reserved;
} mutirao_times;

/* The first step begins, with computing. Use it before the group is closed. */
mutirao_error *mutirao_superstep_begin(const mutirao_group *group, mutirao_superstep **superstep);
/* Computing is over in this step; what follows is exchange. */
void mutirao_superstep_exchange(mutirao_superstep *superstep);
/* Ends the step: waits for all processes to end theirs. The next begins, with computing. */
mutirao_error *mutirao_superstep_meet(mutirao_superstep *superstep);
/* Where the time went in the steps that are over. */
mutirao_error *mutirao_superstep_times(const mutirao_superstep *superstep, mutirao_times *times);
/* Frees it. NULL is allowed. */
void mutirao_superstep_delete(mutirao_superstep *superstep);

#ifdef __cplusplus
}
#endif

#endif
