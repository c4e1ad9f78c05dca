/* Every collective, in a group of any size: whatever is wrong ends the process. */
#include <string.h>

#include "../../../../examples/c/check.h"

#define SIZE 5 /* bytes of a block: no number that fits anything */

static void most(void *into, const void *from, size_t size, void *context)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char *a = (unsigned char *)into + i;
        const unsigned char b = ((const unsigned char *)from)[i];
        if (b > *a) *a = b;
    }
    ++*(int *)context;
}

static unsigned char block_of(uint32_t from, uint32_t to, size_t i)
{
    return (unsigned char)(from * 31 + to * 7 + i);
}

int main(void)
{
    mutirao_group *group;
    mutirao_place place;
    unsigned char *blocks, *came, block[SIZE];
    int joins = 0;
    check(mutirao_group_open(&group));
    check(mutirao_group_place(group, &place));
    blocks = malloc(SIZE * place.processes);
    came = malloc(SIZE * place.processes);
    for (uint32_t root = 0; root < place.processes; root++) {
        const int is_root = place.rank == root;
        check(mutirao_group_barrier(group));
        memset(block, is_root ? 7 : 0, SIZE);
        check(mutirao_group_broadcast(group, root, block, SIZE));
        expect(block[0] == 7 && block[SIZE - 1] == 7, "broadcast");
        for (uint32_t to = 0; to < place.processes; to++) {
            for (size_t i = 0; i < SIZE; i++) blocks[to * SIZE + i] = block_of(root, to, i);
        }
        check(mutirao_group_scatter(group, root, is_root ? blocks : NULL, SIZE, block));
        for (size_t i = 0; i < SIZE; i++) expect(block[i] == block_of(root, place.rank, i), "scatter");
        check(mutirao_group_gather(group, root, block, SIZE, is_root ? came : NULL));
        if (is_root) expect(memcmp(came, blocks, SIZE * place.processes) == 0, "gather");
        memset(block, (int)place.rank, SIZE);
        check(mutirao_group_reduce(group, root, block, SIZE, most, &joins));
        expect(block[SIZE - 1] == (is_root ? place.processes - 1 : place.rank), "reduce");
    }
    for (uint32_t to = 0; to < place.processes; to++) {
        for (size_t i = 0; i < SIZE; i++) blocks[to * SIZE + i] = block_of(place.rank, to, i);
    }
    check(mutirao_group_all_to_all(group, blocks, SIZE, came));
    for (uint32_t from = 0; from < place.processes; from++) {
        for (size_t i = 0; i < SIZE; i++) {
            expect(came[from * SIZE + i] == block_of(from, place.rank, i), "all to all");
        }
    }
    memset(block, (int)place.rank, SIZE);
    check(mutirao_group_reduce_all(group, block, SIZE, most, &joins));
    expect(block[0] == place.processes - 1, "reduce for all");
    expect(joins > 0 || place.processes == 1 || place.rank > 0, "joins were made here");
    expect_error("no root", mutirao_group_broadcast(group, place.processes, block, SIZE), MUTIRAO_E_ARGUMENT);
    expect_error("no join", mutirao_group_reduce(group, 0, block, SIZE, NULL, NULL), MUTIRAO_E_ARGUMENT);
    free(blocks);
    free(came);
    check(mutirao_group_close(group));
    return 0;
}
