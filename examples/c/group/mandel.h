/* mandel.h - what xmandel and gmandel say to each other. */
#ifndef MANDEL_H
#define MANDEL_H

#include <stdint.h>

#define FRAME 30 /* points of a side */

/* From xmandel: a frame to be computed. */
typedef struct {
    double left, top, step;
    uint32_t column, row, iterations, unused; /* no byte of it is left to chance */
} mandel_task;

/* From gmandel: how soon each point escapes. */
typedef struct {
    uint32_t column, row;
    uint16_t counts[FRAME * FRAME];
} mandel_result;

#endif
