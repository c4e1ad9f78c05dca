/* check.h - how the examples deal with errors: whatever they did not expect ends them. */
#ifndef CHECK_H
#define CHECK_H

#include <mutirao.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the program on an error. */
static inline void check(mutirao_error *error)
{
    if (!error) return;
    fprintf(stderr, "error %d: %s\n", mutirao_error_code(error), mutirao_error_text(error));
    mutirao_error_delete(error);
    exit(1);
}

/* Shows an error that is to have this code; ends the program on any other, and on success. */
static inline void expect_error(const char *what, mutirao_error *error, int code)
{
    const int found = mutirao_error_code(error);
    printf("%-18s %s\n", what, error ? mutirao_error_text(error) : "(no error)");
    mutirao_error_delete(error);
    if (found != code) {
        fprintf(stderr, "%s: error %d was expected, not %d\n", what, code, found);
        exit(1);
    }
}

/* Ends the program unless `holds`. */
static inline void expect(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "this should hold: %s\n", what);
    exit(1);
}

#endif
