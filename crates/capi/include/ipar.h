/* ipar.h - how an ipar application in C reports to its manager.
 *
 * `mutirao bag ipar --app ./program` runs the program once for each step, each time with four arguments: how to reach
 * the manager, the method (inicia, executa, finaliza), the number of the task, the task. Each run reports exactly
 * once, by the call of its method, and exits.
 *
 *     int main(int argc, char **argv)
 *     {
 *         const char *manager = argv[1], *method = argv[2];
 *         if (strcmp(method, "inicia") == 0) {
 *             const char *tasks[] = {"1 100", "101 200"};
 *             return ipar_lista_tarefas(manager, tasks, 2) != 0;
 *         }
 *         if (strcmp(method, "executa") == 0)
 *             return ipar_tarefa(manager, atoi(argv[3]), work(argv[4])) != 0;
 *         return ipar_finaliza(manager, join()) != 0;
 *     }
 *
 * What is reported counts when the run has ended. A run that reports twice, or not what its method may, has failed.
 *
 * All functions return 0 when the report was made, or one of the negative numbers below; then none was made. They may
 * be called by any thread and from any process that the run has started.
 *
 * Build:   cc program.c -o program $(pkg-config --cflags --libs mutirao-static)
 * so that nothing has to be on the nodes but the program.
 */
#ifndef MUTIRAO_IPAR_H
#define MUTIRAO_IPAR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IPAR_EARGUMENT (-1) /* a text is NULL or not UTF-8                                      */
#define IPAR_EMANAGER (-2)  /* the manager cannot be reached: it is not what argument 0 was     */
#define IPAR_ETOOLONG (-3)  /* a task, or the list, is longer than the manager takes            */
#define IPAR_ESYSTEM (-4)   /* a fault of the library                                           */

/* From inicia: these are the tasks. From executa: the task was split into these, and is done. The tasks are texts of
 * the application's own, zero-terminated; they are numbered in the order in which they are listed, from 0. */
int ipar_lista_tarefas(const char *manager, const char *const *tasks, size_t count);
/* From executa: the task of this number, which is the program's third argument, was done (`ok` not 0) or could not be
 * (0), and is then tried again as often as `--retries` says. */
int ipar_tarefa(const char *manager, int id, int ok);
/* From finaliza: all is joined (`ok` not 0), which ends the application, or could not be (0). */
int ipar_finaliza(const char *manager, int ok);

/* What went wrong in this thread's last call that failed, and what to do. Never NULL; lives until this thread's next
 * call that fails. */
const char *ipar_error(void);

#ifdef __cplusplus
}
#endif

#endif
