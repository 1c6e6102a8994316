/* divergence.h - the Kullback-Leibler divergence and its gradient in long double, for targets of probabilities and of
 * logits, and the bounds of their errors. It is a part of general.h.
 *
 *     x_k = log t_k - log p_k,   KL = sum t_k g(x_k),   g(x) = x - 1 + exp(-x) >= 0,   and p_k where t_k = 0
 *
 * The errors follow from those of t_k, p_k and x_k. Near x = 0 a term has the relative error of t_k, and
 * t |g'(x)| = t |1 - exp(-x)| times the error of x, and half of t times its square. Far from 0 it is t (x - 1) + p,
 * whose parts add their errors. */
#ifndef SOFTXENT_TESTS_DIVERGENCE_H
#define SOFTXENT_TESTS_DIVERGENCE_H

/* x - 1 + exp(-x), which suffers cancellation near 0, where the series replaces it. */
static inline long double excess_of(long double x)
{
    long double sum = 0;
    if (fabsl(x) > 0.5L) return x - 1 + wide_exp(-x);
    for (int k = 30; k >= 2; --k) sum = (1 - sum * x) / k; /* 1/2! - x/3! + ... times 1 */
    return x * x * sum;
}

/* The error of one term: t is within t_error of itself, p within p_error, both relative, and x within x_error. The
 * kernel changes its formula near |x| = 1.36. */
static inline long double term_error(long double t, long double p, long double x, long double t_error,
                                     long double p_error, long double x_error)
{
    const long double slope = t * (fabsl(expm1l(-x)) + x_error / 2) * x_error;
    const long double near = t * excess_of(x) * t_error + slope;
    const long double far = t * (fabsl(x) + 1) * t_error + p * p_error + t * x_error;
    return fabsl(x) < 1.36L ? near : fabsl(x) < 1.37L ? near + far : far;
}

/* The divergence of sample i, which may be infinite, weighted. */
static inline void set_divergence(const general *g, ptrdiff_t i, const solution *a, long double sum, long double error)
{
    expected.loss[i] = a->sample_weight * sum;
    expected.loss_error[i] = isinf(sum) ? 0
                                        : a->sample_weight * error + eps_of[g->p.d] * expected.loss[i] +
                                              DEEPEST * flush(g, a->sample_weight * (1 + a->weight));
}

/* Of a target of probabilities: x is log(t / p), the logarithm of a quotient. The gradient is that of a loss. */
static inline void expect_divergence(const general *g, ptrdiff_t i, const solution *a)
{
    const long double eps = eps_of[g->p.d];
    long double sum = 0, error = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double t = a->q[k], p = a->e[k] / (1 + a->rest), of_p = relative(g, a->depth[k]);
        if (!a->allowed[k]) continue;
        if (t == 0) {
            sum += p, error += of_p * p;
            continue;
        }
        const long double x = logl(t) + a->depth[k] + a->log_sum;
        if (isinf(x)) {
            sum = INFINITY;
            continue;
        }
        sum += t * excess_of(x), error += term_error(t, p, x, eps, of_p, of_p + 2 * eps * fabsl(x));
    }
    set_divergence(g, i, a, sum, error);
    expect_gradient(g, i, a);
}

/* ---- A teacher's logits ----------------------------------------------------------------------------------------- */

/* `gap` is d, the gap between the teacher's logit and the student's, both below their maxima. z' - z is rounded, and so
 * is what is left of it. If the maxima are far apart, the depths are rounded instead. */
typedef struct {
    long double z[MAX_CLASSES], e[MAX_CLASSES], depth[MAX_CLASSES], gap[MAX_CLASSES], gap_error[MAX_CLASSES];
    long double max, rest, lead;
    int has_nan;
} teacher;

static inline void solve_teacher(const general *g, ptrdiff_t i, const solution *a, teacher *x)
{
    const long double eps = eps_of[g->p.d];
    ptrdiff_t top = 0;
    x->max = -INFINITY, x->rest = 0, x->has_nan = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        x->z[k] = a->allowed[k] ? entry(&g->direction, i, k) : -INFINITY;
        x->has_nan |= isnan(x->z[k]) != 0;
        if (x->z[k] > x->max) x->max = x->z[k], top = k;
    }
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double apart = x->z[k] - a->z[k], tops = x->max - a->max;
        x->depth[k] = (x->max - x->z[k]) / a->temperature, x->e[k] = wide_exp(-x->depth[k]);
        const long double of_logits = (fabsl(apart) + fabsl(tops)) / a->temperature,
                          of_depths = a->depth[k] + x->depth[k];
        const long double distance = fabsl(tops) / a->temperature;
        x->gap[k] = distance > 4 ? a->depth[k] - x->depth[k] : (apart - tops) / a->temperature;
        const long double size = distance > 4.01L ? of_depths : distance < 3.99L ? of_logits : of_logits + of_depths;
        x->gap_error[k] = eps * (0.5L * size + 2 * fabsl(x->gap[k]));
        if (k != top) x->rest += x->e[k];
    }
}

/* log(S(teacher) / S(student)) by the sum of the differences of both, which keeps its precision where they are equal;
 * and its error: if it is refined, each class adds that of its difference, else that of both sums. */
static inline measured log_ratio_of(const general *g, const solution *a, const teacher *x, int is_refined)
{
    const long double eps = eps_of[g->p.d], sum = 1 + a->rest, of_teacher = 1 + x->rest;
    long double change = 0, error = 0, of_sums = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double of_e = relative(g, a->depth[k]), of_t = relative(g, x->depth[k]), gap = x->gap[k];
        const int is_near = fabsl(gap) < 1.36L;
        of_sums += of_e * a->e[k] / sum + of_t * x->e[k] / of_teacher;
        if (a->e[k] == 0 && x->e[k] == 0) continue;
        change += (is_near ? a->e[k] * expm1l(gap) : x->e[k] - a->e[k]) / sum;
        error += (is_near ? a->e[k] * of_e * fabsl(expm1l(gap)) + x->e[k] * x->gap_error[k]
                          : a->e[k] * of_e + x->e[k] * of_t) /
                 sum;
    }
    const measured ratio = {log1pl(change), 0};
    const long double refined = error * sum / of_teacher + 3 * eps * fabsl(ratio.value);
    return (measured){ratio.value, is_refined ? refined : of_sums + 3 * eps * (1 + fabsl(ratio.value))};
}

/* The kernel takes KL = sum t d - log(S / S) where that is as precise: where it is more than an eighth of the sizes of
 * its terms. Near that border either formula may have been taken. */
static inline void expect_teacher(const general *g, ptrdiff_t i, const solution *a)
{
    static teacher x;
    const long double eps = eps_of[g->p.d];
    long double sum = 0, size = 2, near_error = 0, far_error = 0;
    solve_teacher(g, i, a, &x);
    if (x.has_nan || isinf(x.max)) {
        expect_nothing(g, i, a, KL_GRAD);
        for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) set_expected(i * g->p.n_classes + k, a->allowed[k] ? NAN : 0, 0);
        return;
    }
    const measured refined = log_ratio_of(g, a, &x, 1), plain = log_ratio_of(g, a, &x, 0);
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double t = x.e[k] / (1 + x.rest), p = a->e[k] / (1 + a->rest), d = x.gap[k];
        const long double of_t = relative(g, x.depth[k]), of_p = relative(g, a->depth[k]);
        if (x.e[k] < min_normal_of[g->p.d] * 0x1p-24L) { /* its exp becomes 0, which has a factor 2^24 */
            sum += p, near_error += of_p * p;
            continue;
        }
        if (isinf(d)) {
            sum = INFINITY;
            continue;
        }
        sum += t * excess_of(d - refined.value), size += t * fabsl(d);
        near_error += term_error(t, p, d - refined.value, of_t, of_p, x.gap_error[k] + refined.error + eps * fabsl(d));
        far_error += of_t * t * fabsl(d) + t * x.gap_error[k];
    }
    const int is_far = size < 8.01L * sum;
    far_error += plain.error + 4 * eps * size;
    set_divergence(g, i, a, sum, (isinf(sum) ? 0 : near_error) + (is_far ? far_error : 0));
    const measured ratio = is_far ? plain : refined;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double t = x.e[k] / (1 + x.rest), p = a->e[k] / (1 + a->rest), d = x.gap[k];
        const long double of_t = relative(g, x.depth[k]), of_p = relative(g, a->depth[k]);
        const long double apart = d - refined.value; /* nan, or infinite, where a logit is */
        const int is_near = fabsl(apart) < 1.36L, is_border = is_near && fabsl(apart) > 1.35L;
        const long double grad = is_near ? -p * expm1l(apart) : p - t;
        long double error = of_p * p + of_t * t;
        if (is_near)
            error = (is_border ? error : 0) + of_p * fabsl(grad) + t * (x.gap_error[k] + ratio.error + eps * fabsl(d));
        set_expected(i * g->p.n_classes + k, a->allowed[k] ? a->upstream * grad : 0,
                     a->allowed[k] ? fabsl(a->upstream) * error + 4 * flush(g, a->upstream) : 0);
    }
}

#endif
