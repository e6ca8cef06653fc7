/* count-drafts MODEL PROMPT ANSWER [MOST]
 *
 * How many steps a model would take that answers the text of the file PROMPT with exactly that of the file ANSWER, if
 * engine/draft.h guesses up to MOST tokens (default: as many as this CPU's kernels compute at little cost). Nothing is
 * computed: of MODEL only the tokenizer is used. With the times of batches, which `quern-bench -p ROWS -n 0` measures, this
 * tells what guessing gains. */
#include "engine/draft.h"
#include "kernels/kernels.h"
#include "tokenizer/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 24 };

static bool append_file(const struct tokenizer *t, const char *path, struct tok_ids *ids, struct error *err)
{
    FILE *f = fopen(path, "re");
    char *text = malloc(MOST_BYTES);
    size_t n = f && text ? fread(text, 1, MOST_BYTES, f) : 0;
    bool good = text != NULL || error_set(err, "out of memory for %s", path);
    if (good && (!f || ferror(f)))
        good = error_set(err, "cannot read %s: %s", path, strerror(errno));
    else if (good && n == MOST_BYTES)
        good = error_set(err, "%s has more than %d bytes", path, MOST_BYTES - 1);
    good = good && tok_encode(t, text, n, false, ids, err);
    free(text);
    if (f)
        fclose(f);
    return good;
}

/* ids: [n], of which the first n_prompt are the prompt. The first token of the answer comes out of the prompt's own pass. */
static void count(const int32_t *ids, int n_prompt, int n, int most)
{
    int steps[DRAFT_MOST + 2] = {0}, n_steps = 0, n_drafted = 0, n_accepted = 0;
    for (int known = n_prompt + 1; known < n;) {
        int32_t draft[DRAFT_MOST];
        int left = n - known - 1, n_draft = draft_find(ids, known, most < left ? most : left, draft), right = 0;
        while (right < n_draft && draft[right] == ids[known + right])
            right++;
        steps[1 + n_draft]++;
        n_steps++;
        n_drafted += n_draft;
        n_accepted += right;
        known += right + 1;
    }
    printf("answer of %d tokens after %d of the prompt: %d steps; %d tokens guessed, %d of them right\n", n - n_prompt, n_prompt,
        n_steps, n_drafted, n_accepted);
    for (int rows = 1; rows <= DRAFT_MOST + 1; rows++)
        if (steps[rows] > 0)
            printf("%5d steps of %d row%s\n", steps[rows], rows, rows == 1 ? "" : "s");
}

static bool run(const char *model, const char *prompt, const char *answer, int most, struct error *err)
{
    struct gguf *file = gguf_open(model, &(struct gguf_options){0}, err);
    struct tokenizer *t = file ? tok_load(file, err) : NULL;
    struct tok_ids ids = {0};
    bool good = t && append_file(t, prompt, &ids, err);
    int n_prompt = (int)ids.count;
    good = good && append_file(t, answer, &ids, err);
    if (good && (n_prompt == 0 || (int)ids.count == n_prompt))
        good = error_set(err, "%s is empty", n_prompt == 0 ? prompt : answer);
    if (good)
        count(ids.data, n_prompt, (int)ids.count, most);
    tok_ids_free(&ids);
    tok_free(t);
    gguf_close(file);
    return good;
}

int main(int argc, char **argv)
{
    struct error err;
    const struct kernels *kernels = kernels_select(&err);
    char *end = "";
    long most = kernels ? kernels->cheap_rows - 1 : 0;
    if (argc == 5)
        most = strtol(argv[4], &end, 10);
    if (argc < 4 || argc > 5 || *end || (argc == 5 && end == argv[4]) || most < 0 || most > DRAFT_MOST) {
        fprintf(stderr, "usage: count-drafts MODEL.gguf PROMPT_FILE ANSWER_FILE [MOST, 0 to %d]\n", DRAFT_MOST);
        return 2;
    }
    if (!kernels || !run(argv[1], argv[2], argv[3], (int)most, &err)) {
        fprintf(stderr, "count-drafts: %s\n", err.text);
        return 1;
    }
    return 0;
}
