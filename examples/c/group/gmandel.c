/* gmandel.c - computes frames of the Mandelbrot set until no more come.
 *
 * Input channel 0 brings frames, output channel 0 takes them back. Several instances share one channel: each frame
 * goes to the one that asks first.
 */
#include <spd.h>
#include <stdio.h>
#include <stdlib.h>

#include "mandel.h"

static void compute(const mandel_task *task, mandel_result *result)
{
    result->column = task->column;
    result->row = task->row;
    for (int j = 0; j < FRAME; j++) {
        for (int i = 0; i < FRAME; i++) {
            const double cx = task->left + task->step * i, cy = task->top + task->step * j;
            double x = 0, y = 0;
            uint32_t n = 0;
            while (n < task->iterations && x * x + y * y <= 4.0) {
                const double next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
                n++;
            }
            result->counts[j * FRAME + i] = (uint16_t)n;
        }
    }
}

int main(void)
{
    mandel_task task;
    mandel_result result;
    int code = open_spd();
    while (code == 0) {
        msg_type in = {sizeof task, (char *)&task}, out = {sizeof result, (char *)&result};
        code = receivec(0, &in);
        if (code == SPD_EENDED) return close_spd() < 0; /* xmandel has all it wanted */
        if (code == 0) {
            compute(&task, &result);
            code = sendc(0, &out);
        }
    }
    fprintf(stderr, "gmandel: %s\n", spd_error());
    return 1;
}
