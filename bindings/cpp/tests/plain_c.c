/* The header in C99, and the plainest use of it. */
#include <linkedout_edge.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    linkedout_load_options options = LINKEDOUT_LOAD_OPTIONS_INIT;
    linkedout_recommender *rec = NULL;
    options.bundle = linkedout_string("no/such/folder");
    if (linkedout_load(&options, &rec) != LINKEDOUT_BUNDLE_NOT_FOUND || rec != NULL) return 1;
    if (strstr(linkedout_last_error(), "no/such/folder") == NULL) return 2;
    if (strcmp(linkedout_status_name(LINKEDOUT_BUNDLE_NOT_FOUND), "bundle_not_found") != 0) return 3;
    if (strcmp(linkedout_status_name(-1), "unknown") != 0 || strcmp(linkedout_status_name(99), "unknown") != 0)
        return 4;
    printf("linkedout-edge %s\n", linkedout_version());
    return 0;
}
