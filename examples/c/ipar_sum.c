/* ipar_sum: an ipar application. It sums the numbers up to a million, in parts.
 *
 *     mutirao bag ipar --app ./ipar_sum
 *
 * `inicia` lists the parts, `executa` sums one into a file (or splits it, if it is large), `finaliza` adds the files up.
 */
#include <ipar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAST = 1000000, PARTS = 4, LARGEST = 200000 };

static int inicia(const char *manager)
{
    char texts[PARTS][32];
    const char *tasks[PARTS];
    for (int i = 0; i < PARTS; i++) {
        int from = LAST / PARTS * i + 1, to = LAST / PARTS * (i + 1);
        snprintf(texts[i], sizeof texts[i], "%d %d", from, to);
        tasks[i] = texts[i];
    }
    return ipar_lista_tarefas(manager, tasks, PARTS);
}

static int executa(const char *manager, int id, const char *task)
{
    long from, to, sum = 0;
    if (sscanf(task, "%ld %ld", &from, &to) != 2)
        return ipar_tarefa(manager, id, 0);
    if (to - from >= LARGEST) {
        char low[48], high[48];
        long middle = (from + to) / 2;
        snprintf(low, sizeof low, "%ld %ld", from, middle);
        snprintf(high, sizeof high, "%ld %ld", middle + 1, to);
        const char *halves[] = {low, high};
        return ipar_lista_tarefas(manager, halves, 2);
    }
    for (long n = from; n <= to; n++)
        sum += n;
    /* Under a name of this run's own first: a task may run more than once. */
    char name[32], mine[80];
    const char *attempt = getenv("MUTIRAO_ATTEMPT");
    snprintf(name, sizeof name, "part.%d", id);
    snprintf(mine, sizeof mine, "%s.attempt-%.20s", name, attempt ? attempt : "0");
    FILE *file = fopen(mine, "w");
    int written = file && fprintf(file, "%ld\n", sum) > 0;
    if (file && fclose(file) != 0)
        written = 0;
    return ipar_tarefa(manager, id, written && rename(mine, name) == 0);
}

static int finaliza(const char *manager)
{
    long sum = 0, part;
    int parts = 0;
    /* A number without a file is of a task that was split. The files stay: this too may run more than once. */
    for (int id = 0; id < 3 * PARTS; id++) {
        char name[32];
        snprintf(name, sizeof name, "part.%d", id);
        FILE *file = fopen(name, "r");
        if (!file)
            continue;
        if (fscanf(file, "%ld", &part) == 1) {
            sum += part;
            parts++;
        }
        fclose(file);
    }
    printf("%ld in %d parts\n", sum, parts);
    return ipar_finaliza(manager, sum == (long)LAST * (LAST + 1L) / 2);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "start this with: mutirao bag ipar --app %s\n", argv[0]);
        return 2;
    }
    const char *manager = argv[1], *method = argv[2];
    int result;
    if (strcmp(method, "inicia") == 0)
        result = inicia(manager);
    else if (strcmp(method, "executa") == 0)
        result = executa(manager, atoi(argv[3]), argv[4]);
    else
        result = finaliza(manager);
    if (result != 0)
        fprintf(stderr, "%s\n", ipar_error());
    return result != 0;
}
