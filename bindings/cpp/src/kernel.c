/* Python's scoring kernel, compiled from the same source. */
#define LINKEDOUT_WITHOUT_PYTHON
#include "kernel.h"

#include "../../../linkedout_edge/_kernel.c"

static const Path *chosen_path(void) {
    const char *forced = getenv("LINKEDOUT_SCORER");
    const Path *found = forced == NULL ? NULL : find_path(forced);
    for (size_t n = 0; found == NULL && n < PATHS; n++)
        if (paths[n].is_here()) found = &paths[n];
    return found; /* plain C is always here */
}

const char *linkedout_kernel_path(void) { return chosen_path()->name; }

int linkedout_kernel_score(const linkedout_kernel_task *given) {
    if (!digits_fit(given->digits, given->layers * given->per_layer, given->width)) return -2;
    const Query query = {.digits = given->digits,
                         .units = given->units,
                         .offsets = given->offsets,
                         .layers = given->layers,
                         .per_layer = given->per_layer,
                         .width = given->width};
    const Task task = {.query = query,
                       .tokens = given->tokens,
                       .scales = given->scales,
                       .rows = given->rows,
                       .scores = given->scores,
                       .contributions = given->contributions,
                       .stored = given->stored,
                       .total = given->total};
    const ptrdiff_t wrong = score_rows(chosen_path(), task);
    return wrong == -1 ? 0 : wrong == -2 ? -1 : -3;
}
