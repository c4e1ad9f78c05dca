/* xmandel.c - deals out the Mandelbrot set, frame by frame, and puts the picture together.
 *
 *     xmandel LEFT RIGHT TOP BOTTOM [SIDE] [GENERATORS] [ITERATIONS]
 *
 * Output channel 0 leads to all instances of gmandel, input channel 0 comes from them. The picture goes to standard
 * output as PGM, which most viewers open, and how long it took, from the first frame that a generator took, to standard
 * error.
 */
#define _POSIX_C_SOURCE 199309L /* clock_gettime */

#include <spd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mandel.h"

#define GREY 255

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static int fail(const char *what)
{
    fprintf(stderr, "xmandel: %s: %s\n", what, spd_error());
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: xmandel LEFT RIGHT TOP BOTTOM [SIDE] [GENERATORS] [ITERATIONS]\n");
        return 2;
    }
    const double left = atof(argv[1]), right = atof(argv[2]), top = atof(argv[3]);
    const int side = (argc > 5 ? atoi(argv[5]) : 300) / FRAME * FRAME;
    const int generators = argc > 6 ? atoi(argv[6]) : 2;
    const int iterations = argc > 7 ? atoi(argv[7]) : 255;
    if (side <= 0 || generators <= 0 || iterations <= 0 || iterations > UINT16_MAX || right <= left) {
        fprintf(stderr, "xmandel: SIDE must be at least %d, GENERATORS at least 1, ITERATIONS from 1 to %d, RIGHT beyond LEFT\n",
                FRAME, UINT16_MAX);
        return 2;
    }
    const int frames_a_side = side / FRAME, frames = frames_a_side * frames_a_side;
    const double step = (right - left) / side;
    unsigned char *picture = calloc((size_t)side, (size_t)side);
    if (!picture) return 1;
    if (open_spd() < 0) return fail("open_spd");
    double began_ms = 0;

    /* So many frames are out at a time as there are generators: each send meets one that waits for it. */
    for (int dealt = 0, done = 0; done < frames;) {
        if (dealt < frames && dealt - done < generators) {
            const int column = dealt % frames_a_side, row = dealt / frames_a_side;
            mandel_task task = {left + step * FRAME * column, top + step * FRAME * row, step,
                                (uint32_t)column,             (uint32_t)row,            (uint32_t)iterations, 0};
            msg_type out = {sizeof task, (char *)&task};
            if (sendc(0, &out) < 0) return fail("sendc");
            if (dealt++ == 0) began_ms = now_ms();
            continue;
        }
        mandel_result result;
        msg_type in = {sizeof result, (char *)&result};
        if (receivec(0, &in) < 0) return fail("receivec");
        for (int j = 0; j < FRAME; j++)
            for (int i = 0; i < FRAME; i++)
                picture[(result.row * FRAME + j) * side + result.column * FRAME + i] =
                    (unsigned char)(result.counts[j * FRAME + i] * GREY / iterations);
        done++;
    }
    const double took_ms = now_ms() - began_ms;
    if (close_spd() < 0) return fail("close_spd");

    printf("P5 %d %d %d\n", side, side, GREY);
    fwrite(picture, (size_t)side, (size_t)side, stdout);
    free(picture);
    fprintf(stderr, "xmandel: %d frames in %.1f ms\n", frames, took_ms);
    return 0;
}
