#include "engine/logprobs.h"
#include "engine/exp.h"

#include <math.h>

static double logprob(float logit, float best, double log_total)
{
    if (!(logit > -INFINITY))
        return -INFINITY;
    /* Plus infinity is certain: the difference to itself must not become NaN. */
    return (logit == best ? 0.0 : (double)logit - (double)best) - log_total;
}

void logprobs_of(const float *logits, int n_vocab, int32_t chosen, int n_top, struct token_choice *out)
{
    int32_t ids[LOGPROBS_MAX_TOP + 1];
    int wanted = n_top > LOGPROBS_MAX_TOP ? LOGPROBS_MAX_TOP : n_top, n = 0;
    float best = -INFINITY;
    for (int32_t i = 0; i < n_vocab; i++) {
        float logit = logits[i];
        if (logit > best)
            best = logit;
        if (!(logit > -INFINITY) || (n == wanted && (n == 0 || !(logit > logits[ids[n - 1]]))))
            continue;
        int at = n < wanted ? n++ : n - 1; /* ids ascend, so one that equals those before it comes after them */
        for (; at > 0 && logit > logits[ids[at - 1]]; at--)
            ids[at] = ids[at - 1];
        ids[at] = i;
    }
    double total = 0;
    for (int i = 0; i < n_vocab; i++)
        total += logits[i] == best ? 1.0 : exp_negative((double)logits[i] - (double)best);
    double log_total = total >= 1 ? log_above_one(total) : 0;
    out->chosen = (struct token_logprob){chosen, logprob(logits[chosen], best, log_total)};
    out->n_top = n;
    for (int i = 0; i < n; i++)
        out->top[i] = (struct token_logprob){ids[i], logprob(logits[ids[i]], best, log_total)};
}
