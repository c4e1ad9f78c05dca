/* ring.c - sends a number once round a ring of processes; each adds one.
 *
 *     ring first|next
 *
 * Input channel 0 comes from the process before, output channel 0 leads to the one after. The one that is told
 * "first" begins, and says what came back.
 */
#include <spd.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const int is_first = argc > 1 && strcmp(argv[1], "first") == 0;
    int number = 0;
    msg_type m = {sizeof number, (char *)&number};
    int code = open_spd();
    if (code == 0 && is_first) code = sendc(0, &m);
    if (code == 0) code = receivec(0, &m);
    number++;
    if (code == 0 && !is_first) code = sendc(0, &m);
    if (code == 0) code = close_spd();
    if (code < 0) {
        fprintf(stderr, "ring: %s\n", spd_error());
        return 1;
    }
    if (is_first) printf("%d processes\n", number);
    return 0;
}
