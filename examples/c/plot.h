/* plot.h - draws two quantities over time into an SVG file. */
#ifndef PLOT_H
#define PLOT_H

#include <stdio.h>

typedef struct plot_point {
    double seconds;
    double slots;
    double per_second;
} plot_point;

enum { PLOT_WIDTH = 760, PLOT_HEIGHT = 400, PLOT_LEFT = 60, PLOT_RIGHT = 70, PLOT_TOP = 50, PLOT_BOTTOM = 50 };

static inline double plot_x(double seconds, double last)
{
    return PLOT_LEFT + seconds / last * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT);
}

static inline double plot_y(double value, double most)
{
    return PLOT_HEIGHT - PLOT_BOTTOM - value / most * (PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM);
}

static inline void plot_text(FILE *file, double x, double y, const char *anchor, const char *colour,
                             const char *text)
{
    fprintf(file, "<text x='%.1f' y='%.1f' text-anchor='%s' fill='%s'>%s</text>\n", x, y, anchor, colour, text);
}

/* Returns 0, or -1 if the file cannot be written; there must be two points at least. */
static inline int plot_write(const char *path, const char *title, const plot_point *points, size_t count)
{
    FILE *file = fopen(path, "w");
    if (!file) return -1;
    const char *blue = "#1f5fa8", *red = "#b3452c", *grey = "#555555";
    double most_slots = 1, most_rate = 1;
    const double last = points[count - 1].seconds;
    for (size_t i = 0; i < count; i++) {
        if (points[i].slots > most_slots) most_slots = points[i].slots;
        if (points[i].per_second > most_rate) most_rate = points[i].per_second;
    }
    most_slots += 1, most_rate *= 1.1;
    fprintf(file, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
                  "font-size='12'>\n<rect width='100%%' height='100%%' fill='white'/>\n", PLOT_WIDTH, PLOT_HEIGHT);
    plot_text(file, PLOT_WIDTH / 2.0, 22, "middle", "black", title);
    char number[32];
    for (int i = 0; i <= 4; i++) {
        const double y = plot_y(i, 4);
        fprintf(file, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#dddddd'/>\n", PLOT_LEFT, y,
                PLOT_WIDTH - PLOT_RIGHT, y);
        snprintf(number, sizeof number, "%.3g", most_slots * i / 4);
        plot_text(file, PLOT_LEFT - 8, y + 4, "end", blue, number);
        snprintf(number, sizeof number, "%.3g", most_rate * i / 4);
        plot_text(file, PLOT_WIDTH - PLOT_RIGHT + 8, y + 4, "start", red, number);
        snprintf(number, sizeof number, "%.1f s", last * i / 4);
        plot_text(file, plot_x(last * i / 4, last), PLOT_HEIGHT - PLOT_BOTTOM + 18, "middle", grey, number);
    }
    plot_text(file, PLOT_LEFT, 42, "start", blue, "slots");
    plot_text(file, PLOT_WIDTH - PLOT_RIGHT, 42, "end", red, "calls finished a second");
    fprintf(file, "<polyline fill='none' stroke='%s' stroke-width='1.5' points='", red);
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%.1f,%.1f ", plot_x(points[i].seconds, last), plot_y(points[i].per_second, most_rate));
    fprintf(file, "'/>\n<polyline fill='none' stroke='%s' stroke-width='2.5' points='", blue);
    for (size_t i = 0; i < count; i++) {
        /* Slots change in steps. */
        if (i) fprintf(file, "%.1f,%.1f ", plot_x(points[i].seconds, last), plot_y(points[i - 1].slots, most_slots));
        fprintf(file, "%.1f,%.1f ", plot_x(points[i].seconds, last), plot_y(points[i].slots, most_slots));
    }
    fputs("'/>\n</svg>\n", file);
    return fclose(file) ? -1 : 0;
}

#endif
