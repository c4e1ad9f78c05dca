/* Every routine of channels, between two processes: whatever is wrong ends them.
 *
 * Rank 0 sends over two channels, and hears over one.
 */
#include <poll.h>
#include <string.h>

#include "../../../../examples/c/check.h"

#define LONG (64 * 1024 * 1024)

static void expect_code(mutirao_error *error, int code, const char *what)
{
    const int found = mutirao_error_code(error);
    if (found != code) fprintf(stderr, "%d: %s\n", found, error ? mutirao_error_text(error) : "");
    mutirao_error_delete(error);
    expect(found == code, what);
}

static void sends(mutirao_group *group)
{
    mutirao_channel *sync, *async, *back;
    mutirao_bytes bytes = {NULL, 0};
    size_t messages = 9;
    uint64_t stored = 9;
    char *room;
    check(mutirao_group_output(group, 0, &sync));
    check(mutirao_group_output(group, 1, &async));
    check(mutirao_group_input(group, 0, &back));
    expect_code(mutirao_group_output(group, 2, &sync), MUTIRAO_E_ARGUMENT, "there is no third output");
    expect_code(mutirao_channel_send(back, "x", 1, -1), MUTIRAO_E_ARGUMENT, "an input is not sent to");
    expect_code(mutirao_channel_send(sync, NULL, 1, -1), MUTIRAO_E_ARGUMENT, "one byte is not NULL");
    check(mutirao_channel_send(sync, "hello", 5, -1));
    check(mutirao_channel_send(sync, NULL, 0, 60000));
    expect_code(mutirao_channel_post(sync, "x", 1, -1), MUTIRAO_E_MODE, "the channel is synchronous");

    check(mutirao_bytes_new(LONG, &bytes));
    memset(bytes.data, 'm', LONG);
    ((char *)bytes.data)[LONG - 1] = 'e';
    /* Larger than what may be stored, which is let through alone. */
    check(mutirao_channel_post_bytes(async, &bytes, -1));
    expect(bytes.data == NULL && bytes.size == 0, "the message is the library's");
    check(mutirao_bytes_new(3, &bytes));
    memcpy(bytes.data, "end", 3);
    expect_code(mutirao_channel_post_bytes(async, &bytes, 0), MUTIRAO_E_TIMEOUT, "there is no room");
    expect(bytes.size == 3 && strcmp(bytes.data, "end") == 0, "the message is the caller's");
    check(mutirao_channel_stored(async, &messages, &stored));
    expect(messages == 1 && stored >= LONG, "as much is stored as was posted");
    /* The other process goes on only now. */
    check(mutirao_channel_send(sync, "go", 2, -1));
    check(mutirao_channel_post_bytes(async, &bytes, 60000));

    room = malloc(100);
    check(mutirao_channel_receive_into(back, room, 100, 60000, &messages));
    expect(messages == 4 && memcmp(room, "back", 4) == 0, "a message comes back");
    free(room);
    for (int i = 0; i < 100; i++) check(mutirao_channel_post(async, &i, sizeof i, -1));
}

static void receives(mutirao_group *group)
{
    mutirao_channel *sync, *async, *back, *inputs[3] = {NULL, NULL, NULL};
    mutirao_bytes bytes;
    char room[4];
    size_t size = 0, index = 9;
    int ready = 9, next = 0, ended = 0;
    check(mutirao_group_input(group, 0, &sync));
    check(mutirao_group_input(group, 1, &async));
    check(mutirao_group_output(group, 0, &back));
    expect_code(mutirao_channel_select(inputs, 3, 0, &index), MUTIRAO_E_ARGUMENT, "none is listed");
    inputs[1] = sync;
    check(mutirao_channel_select(inputs, 3, 60000, &index));
    expect(index == 1, "the one that is listed");
    expect_code(mutirao_channel_receive_into(sync, room, sizeof room, -1, &size), MUTIRAO_E_TOO_LARGE,
                "it does not fit");
    check(mutirao_channel_receive(sync, -1, &bytes));
    expect(bytes.size == 5 && strcmp(bytes.data, "hello") == 0, "it has stayed, and ends with a zero");
    mutirao_bytes_delete(&bytes);
    check(mutirao_channel_receive_into(sync, NULL, 0, -1, &size));
    expect(size == 0, "an empty message");
    check(mutirao_channel_receive(sync, -1, &bytes));
    expect(bytes.size == 2, "go");
    mutirao_bytes_delete(&bytes);

    check(mutirao_channel_receive(async, -1, &bytes));
    expect(bytes.size == LONG && ((char *)bytes.data)[0] == 'm' && ((char *)bytes.data)[LONG - 1] == 'e',
           "the long message");
    mutirao_bytes_delete(&bytes);
    check(mutirao_channel_receive(async, 60000, &bytes));
    expect(strcmp(bytes.data, "end") == 0, "the one that had no room");
    mutirao_bytes_delete(&bytes);
    expect_code(mutirao_channel_receive(async, 0, &bytes), MUTIRAO_E_TIMEOUT, "there is nothing");
    expect_code(mutirao_channel_receive(async, 20, &bytes), MUTIRAO_E_TIMEOUT, "nothing comes");
    expect_code(mutirao_channel_receive(back, 0, &bytes), MUTIRAO_E_ARGUMENT, "an output brings nothing");

    /* An event loop over both. */
    inputs[0] = async;
    while (ended < 2) {
        int number;
        for (int i = 0; i < 2; i++) {
            mutirao_error *error = NULL;
            while (inputs[i] && !(error = mutirao_channel_receive_into(inputs[i], &number, sizeof number, 0, &size))) {
                expect(size == sizeof number && number == next++, "in order");
            }
            if (mutirao_error_code(error) == MUTIRAO_E_ENDED) {
                inputs[i] = NULL;
                ended++;
            } else if (error && mutirao_error_code(error) != MUTIRAO_E_TIMEOUT) {
                check(error);
            }
            mutirao_error_delete(error);
        }
        if (next == 0 && back) {
            check(mutirao_channel_post(back, "back", 4, -1));
            back = NULL;
        }
        if (ended == 2) break;
        check(mutirao_channel_arm((mutirao_channel *const *)inputs, 3, &ready));
        if (!ready) {
            struct pollfd events = {mutirao_group_event_fd(group), POLLIN, 0};
            expect(poll(&events, 1, 60000) == 1, "something happens");
        }
    }
    expect(next == 100, "all numbers came");
}

int main(void)
{
    mutirao_group *group;
    mutirao_place place;
    check(mutirao_group_open(&group));
    check(mutirao_group_place(group, &place));
    expect(strcmp(place.group, "test") == 0 && strcmp(place.program, "channels") == 0, "names");
    expect(place.processes == 2 && place.instance == place.rank && place.rank < 2, "numbers");
    expect(place.outputs == (place.rank == 0 ? 2 : 1) && place.inputs == (place.rank == 0 ? 1 : 2), "channels");
    expect_code(mutirao_group_barrier(group), MUTIRAO_E_ARGUMENT, "the group has no collectives");
    expect(mutirao_group_event_fd(NULL) == -1, "no group, no descriptor");
    (place.rank == 0 ? sends : receives)(group);
    check(mutirao_group_close(group));
    check(mutirao_group_close(NULL));
    expect_code(mutirao_group_open(&group), MUTIRAO_E_ARGUMENT, "once");
    return 0;
}
