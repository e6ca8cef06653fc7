#include "engine/draft.h"

/* How many tokens before `a` and before `b` (a < b) are the same, at most `most`. */
static int agreement(const int32_t *tokens, int a, int b, int most)
{
    int n = 0;
    while (n < most && n < a && tokens[a - 1 - n] == tokens[b - 1 - n])
        n++;
    return n;
}

int draft_find(const int32_t *tokens, int n, int most, int32_t *draft)
{
    int best = 1, from = 0;
    for (int end = n - 1; end > 1 && best <= most; end--) {
        if (tokens[end - 1] != tokens[n - 1])
            continue;
        int same = agreement(tokens, end, n, most + 1);
        if (same > best) {
            best = same;
            from = end;
        }
    }
    for (int i = 0; i < best - 1; i++) /* beyond the last token, what repeats goes on repeating */
        draft[i] = from + i < n ? tokens[from + i] : draft[from + i - n];
    return best - 1;
}
