/* mandelbrot.c - draws the Mandelbrot set on every node of a pool.
 *
 * The picture is cut into square frames; computing one is the operation. The same executable runs
 * here, where it hands out frames, and on every lent slot, where it computes them.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <mutirao.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "picture.h"

#define NODES_MAX 256

/* The argument of the operation. Both ends are the same program on the same architecture. */
typedef struct {
    uint32_t size, frame, iterations, column, row;
} frame_task;

static void compute(const frame_task *task, uint16_t *counts)
{
    for (uint32_t j = 0; j < task->frame; j++) {
        for (uint32_t i = 0; i < task->frame; i++) {
            const double cx = -2.5 + 3.0 * (task->column * task->frame + i) / task->size;
            const double cy = -1.0 + 2.0 * (task->row * task->frame + j) / task->size;
            double x = 0, y = 0;
            uint32_t n = 0;
            while (n < task->iterations) {
                const double x2 = x * x, y2 = y * y;
                if (x2 + y2 > 4.0) break;
                y = 2 * x * y + cy;
                x = x2 - y2 + cx;
                n++;
            }
            counts[j * task->frame + i] = (uint16_t)n;
        }
    }
}

static int frame_operation(const void *arg, size_t size, mutirao_result *result)
{
    const frame_task *task = arg;
    if (size != sizeof *task) return mutirao_result_fail(result, 1, "the argument is not a frame");
    uint16_t *counts = mutirao_result_reserve(result, (size_t)task->frame * task->frame * sizeof *counts);
    if (!counts) return mutirao_result_fail(result, 2, "the frame is too large");
    compute(task, counts);
    return 0;
}

static const mutirao_operation operations[] = {{"frame", frame_operation, MUTIRAO_REPEATABLE}};

static void place(uint16_t *picture, const frame_task *task, const uint16_t *counts)
{
    for (uint32_t j = 0; j < task->frame; j++) {
        const size_t at = (size_t)(task->row * task->frame + j) * task->size + task->column * task->frame;
        memcpy(picture + at, counts + (size_t)j * task->frame, task->frame * sizeof *counts);
    }
}

static void fail(mutirao_error *error)
{
    fprintf(stderr, "mandelbrot: %s\n", mutirao_error_text(error));
    mutirao_error_delete(error);
    exit(1);
}

static void check(mutirao_error *error)
{
    if (error) fail(error);
}

static void *room(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory) {
        fprintf(stderr, "mandelbrot: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void progress(const char *what, uint32_t done, uint32_t total)
{
    static uint32_t shown;
    const uint32_t percent = total ? 100 * done / total : 100;
    if (!isatty(2) || (percent == shown && done != total)) return;
    shown = percent;
    fprintf(stderr, "\r%-10s [%-50.*s] %3u %%", what, (int)percent / 2,
            "##################################################", percent);
    if (done == total) fputc('\n', stderr);
}

/* How many frames each node computed. */
static struct {
    char name[64];
    uint32_t frames;
} shares[NODES_MAX];

static void count(const char *node)
{
    for (int i = 0; i < NODES_MAX; i++) {
        if (!shares[i].frames) snprintf(shares[i].name, sizeof shares[i].name, "%s", node);
        if (strcmp(shares[i].name, node) == 0) {
            shares[i].frames++;
            return;
        }
    }
}

static void draw_here(uint16_t *picture, frame_task task)
{
    const uint32_t side = task.size / task.frame;
    uint16_t *counts = room((size_t)task.frame * task.frame * sizeof *counts);
    for (uint32_t k = 0; k < side * side; k++) {
        task.column = k % side;
        task.row = k / side;
        compute(&task, counts);
        place(picture, &task, counts);
        progress("sequential", k + 1, side * side);
    }
    free(counts);
}

static void draw_on_pool(mutirao_pool *pool, uint16_t *picture, frame_task task)
{
    const uint32_t side = task.size / task.frame, total = side * side;
    frame_task *tasks = room(total * sizeof *tasks);
    for (uint32_t k = 0; k < total; k++) {
        tasks[k] = task;
        tasks[k].column = k % side;
        tasks[k].row = k / side;
        mutirao_call_options options = MUTIRAO_CALL_OPTIONS_INIT;
        options.context = &tasks[k];
        mutirao_call *call;
        check(mutirao_call_start(pool, "frame", &tasks[k], sizeof tasks[k], &options, &call));
    }
    struct pollfd finished = {mutirao_event_fd(pool), POLLIN, 0};
    for (uint32_t done = 0; done < total;) {
        mutirao_call *call = mutirao_next(pool);
        if (!call) {
            if (poll(&finished, 1, -1) < 0 && errno != EINTR) {
                perror("mandelbrot: poll");
                exit(1);
            }
            continue;
        }
        mutirao_bytes counts = {0};
        check(mutirao_call_result(call, &counts));
        place(picture, mutirao_call_context(call), counts.data);
        count(mutirao_call_node(call));
        mutirao_bytes_delete(&counts);
        mutirao_call_delete(call);
        progress("pool", ++done, total);
    }
    free(tasks);
}

static void usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: mandelbrot [--size N] [--frame N] [--iterations N] [--slots N] [--output FILE] [--pool-only]\n"
            "  --size        width and height in pixels, a multiple of --frame  (2400)\n"
            "  --frame       width and height of one frame                      (60)\n"
            "  --iterations  most iterations a pixel, at most 65535             (5000)\n"
            "  --slots       most slots to use; 0: all that are free            (0)\n"
            "  --output      the picture                                        (mandelbrot.png)\n"
            "  --pool-only   leave out the sequential run and the comparison\n"
            "example: mandelbrot --size 600 --frame 30 --iterations 1000\n");
    exit(code);
}

static uint32_t number(const char *option, const char *text, uint32_t least, uint32_t most)
{
    char *end;
    const unsigned long n = text ? strtoul(text, &end, 10) : 0;
    if (!text || end == text || *end || *text == '-' || n < least || n > most) {
        fprintf(stderr, "mandelbrot: %s needs a number from %u to %u\n", option, least, most);
        exit(2);
    }
    return (uint32_t)n;
}

int main(int argc, char **argv)
{
    check(mutirao_init(&argc, &argv, operations, 1));

    frame_task task = {2400, 60, 5000, 0, 0};
    uint32_t slots = 0;
    const char *output = "mandelbrot.png";
    int pool_only = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--help")) usage(0);
        else if (!strcmp(argv[i], "--pool-only")) pool_only = 1;
        else if (!strcmp(argv[i], "--size")) task.size = number(argv[i++], value, 1, 16384);
        else if (!strcmp(argv[i], "--frame")) task.frame = number(argv[i++], value, 1, 4096);
        else if (!strcmp(argv[i], "--iterations")) task.iterations = number(argv[i++], value, 1, 65535);
        else if (!strcmp(argv[i], "--slots")) slots = number(argv[i++], value, 0, 100000);
        else if (!strcmp(argv[i], "--output") && value) output = argv[++i];
        else usage(2);
    }
    if (task.size % task.frame) {
        fprintf(stderr, "mandelbrot: --size must be a multiple of --frame\n");
        return 2;
    }
    const size_t bytes = (size_t)task.size * task.size * sizeof(uint16_t);
    uint16_t *picture = room(bytes), *reference = room(bytes);

    double sequential_s = 0;
    if (!pool_only) {
        const double start = seconds();
        draw_here(reference, task);
        sequential_s = seconds() - start;
    }

    mutirao_options options = MUTIRAO_OPTIONS_INIT;
    options.slots_max = slots;
    mutirao_pool *pool;
    const double start = seconds();
    check(mutirao_open(&options, &pool));
    draw_on_pool(pool, picture, task);
    const double pool_s = seconds() - start;
    mutirao_close(pool);

    FILE *file = fopen(output, "wb");
    uint8_t *row = room(task.size + 16);
    int written = file && picture_write(file, picture, task.size, (uint16_t)task.iterations, row);
    if (file && fclose(file) != 0) written = 0;
    if (!written) {
        fprintf(stderr, "mandelbrot: %s: %s\n", output, strerror(errno));
        return 1;
    }

    const int equal = pool_only || memcmp(picture, reference, bytes) == 0;
    if (!pool_only) printf("sequential  %8.3f s\n", sequential_s);
    printf("pool        %8.3f s\n", pool_s);
    if (!pool_only) printf("speed-up    %8.2f\n", sequential_s / pool_s);
    for (int i = 0; i < NODES_MAX && shares[i].frames; i++)
        printf("%-20s %6u frames\n", shares[i].name, shares[i].frames);
    if (!pool_only) printf("%s equals the sequential picture: %s\n", output, equal ? "yes" : "NO");
    free(row);
    free(picture);
    free(reference);
    return equal ? 0 : 1;
}
