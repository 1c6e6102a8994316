/* general.h - a problem with everything that the general kernel knows: options, targets, sparse targets, weights,
 * removed classes, half precision, directions, temperatures of samples; its answer in long double by the formulas of
 * softxent.h, and the bounds that docs/accuracy.md states. The divergences are in divergence.h. */
#ifndef SOFTXENT_TESTS_GENERAL_H
#define SOFTXENT_TESTS_GENERAL_H

#include "problem.h"

/* The features that a problem's options and arrays are drawn from. */
enum feature {
    HAS_TARGET = 1,
    HAS_CLASS_WEIGHT = 2,
    HAS_SAMPLE_WEIGHT = 4,
    HAS_WHERE = 8,
    HAS_SMOOTHING = 16,
    HAS_TEMPERATURE = 32,
    HAS_SOFTCAP = 64,
    HAS_Z_LOSS = 128,
    HAS_LOG_BASE = 256,
    HAS_GRAD_OUTPUT = 512,
    HAS_IGNORE_INDEX = 1024,
    HAS_HALVES = 2048,
    HAS_SPARSE = 4096,       /* a sparse target, in place of labels or a target */
    HAS_TEMPERATURES = 8192, /* each sample has its own, in place of the option */
    ALL_FEATURES = 16383
};

/* The element type of each array that has its own type. */
typedef struct {
    enum dtype logits, target, direction, loss, out;
} dtypes;

typedef struct {
    problem p;
    softxent_options o;
    int features, hess_kind;
    array class_weight, sample_weight, where, direction;
    array classes, masses; /* of the sparse target; as many for each sample as masses.n_classes */
    array temperatures;    /* doubles, whatever the dtype */
    dtypes held;
    int is_divergence; /* of the target from the softmax: only the classes that are left count */
    int solved_for;    /* a view, below; 0 where nothing is solved yet */
} general;

/* ---- Drawing ---------------------------------------------------------------------------------------------------- */

static inline int one_in(int n) { return random_bits() % (uint64_t)n == 0; }

static inline layout any_layout(void) { return layouts[random_bits() % N_LAYOUTS]; }

static inline enum dtype any_dtype(enum dtype d, int features)
{
    static const enum dtype held[] = {F32, F16, BF16};
    return features & HAS_HALVES ? held[random_bits() % 3] : d;
}

static inline unsigned char *allowed_at(const general *g, ptrdiff_t i, ptrdiff_t k)
{
    return g->where.data + index_in(&g->where, i, k);
}

static inline int is_allowed(const general *g, ptrdiff_t i, ptrdiff_t k)
{
    return !(g->features & HAS_WHERE) || *allowed_at(g, i, k);
}

/* Removes a third of the classes: the same classes for all samples, or others for each sample; sometimes all classes of
 * a sample. As a rule the label's class stays, and removed classes have no mass in the target: otherwise the loss would
 * be infinite. */
static inline void draw_where(general *g, int at_end)
{
    const problem *p = &g->p;
    g->where = array_of(arenas[WHERE], at_end, any_layout(), p->n, p->n_classes, 1);
    if (one_in(4)) g->where.sample_stride = 0;
    if (one_in(16)) g->where.class_stride = 0;
    for (ptrdiff_t i = 0; i < p->n; ++i)
        for (ptrdiff_t k = 0; k < p->n_classes; ++k)
            *allowed_at(g, i, k) = one_in(3) ? 0 : (unsigned char)(1 + random_bits() % 255);
    for (ptrdiff_t i = 0; i < p->n; ++i)
        if (!one_in(16)) *allowed_at(g, i, get_label(p, i)) = 1;
    for (ptrdiff_t i = 0; i < p->n && (g->features & HAS_WHERE); ++i)
        for (ptrdiff_t k = 0; k < p->n_classes; ++k)
            if (!is_allowed(g, i, k) && !one_in(1000)) put(&p->target, i, k, 0);
}

/* The distribution that the sparse target stands for. */
static long double dense_target[MAX_SAMPLES][MAX_CLASSES];

static inline void densify(const general *g)
{
    memset(dense_target, 0, sizeof dense_target);
    for (ptrdiff_t i = 0; i < g->p.n; ++i)
        for (ptrdiff_t j = 0; j < g->masses.n_classes; ++j) {
            const int64_t k = get_integer(g->p.label_type, g->classes.data, index_in(&g->classes, i, j));
            if (k >= 0 && k < g->p.n_classes) dense_target[i][k] += entry(&g->masses, i, j);
        }
}

/* A few classes of each sample, or more than the row kernel takes one by one. Some come twice, some are padding, and
 * some have mass 0. As a rule removed classes have no mass, as in a target. */
enum { MAX_SPARSE = 70 };

static inline ptrdiff_t draw_n_masses(ptrdiff_t n_samples)
{
    static const ptrdiff_t counts[] = {1, 3, 8, 64, 65, MAX_SPARSE};
    return counts[random_bits() % (n_samples > 9 ? 3 : 6)];
}

static inline void draw_masses(general *g, ptrdiff_t n, int at_end)
{
    const problem *p = &g->p;
    const layout l = {"masses", 0, (int)(random_bits() % 4), 1, 0};
    const int64_t most = label_max[p->label_type];
    g->classes = array_of(arenas[CLASSES], at_end, l, p->n, n, label_size[p->label_type]);
    g->masses = reals_of(arenas[MASSES], at_end, l, p->n, n, p->d);
    for (ptrdiff_t i = 0; i < p->n; ++i)
        for (ptrdiff_t j = 0; j < n; ++j) {
            const uint64_t n_classes = (uint64_t)(p->n_classes < most ? p->n_classes : most);
            int64_t k = (int64_t)(random_bits() % (one_in(3) ? n_classes / 2 + 1 : n_classes));
            long double mass = one_in(5) ? 0 : random_between(0, 2) / (double)n;
            if (!is_allowed(g, i, k) && !one_in(1000)) mass = 0;
            if (p->label_type < SOFTXENT_UINT8 && one_in(4)) k = -1, mass = random_between(0, 2);
            set_integer(p->label_type, g->classes.data, index_in(&g->classes, i, j), k);
            put(&g->masses, i, j, mass);
        }
    densify(g);
}

static inline void draw_temperatures(general *g, layout l, int at_end)
{
    static const double some[] = {1, 0.01, 100, 1.7, 1.0 / 3, 2, 0.5};
    g->temperatures = reals_of(arenas[TEMPERATURES], at_end, l, g->p.n, 1, F64);
    for (ptrdiff_t i = 0; i < g->p.n; ++i)
        put(&g->temperatures, i, 0, one_in(3) ? random_between(0.3, 3) : some[random_bits() % 7]);
}

static inline void draw_weights(general *g, layout l, int at_end)
{
    const problem *p = &g->p;
    g->class_weight = reals_of(arenas[CLASS_WEIGHT], at_end, layouts[0], 1, p->n_classes, p->d);
    g->sample_weight = reals_of(arenas[SAMPLE_WEIGHT], at_end, l, p->n, 1, p->d);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) put(&g->class_weight, 0, k, one_in(6) ? 0 : random_between(0, 2));
    for (ptrdiff_t i = 0; i < p->n; ++i) put(&g->sample_weight, i, 0, one_in(6) ? 0 : random_between(0, 2));
}

KNOWS_FIELDS_UP_TO(log_base, softxent_options); /* here, in what is solved from it, and in `enum feature` */

static inline softxent_options draw_options(int features, const array *class_weight)
{
    static const double temperatures[] = {1, 0.01, 100, 1.7, 1.0 / 3, 2, 0.5};
    static const double caps[] = {30, 50, 3.3, 0.5, 1000};
    static const double bases[] = {0.6931471805599453, 2.302585092994046, -0.6931471805599453};
    softxent_options o;
    memset(&o, 0, sizeof o);
    o.size = sizeof o;
    if (features & HAS_CLASS_WEIGHT) o.class_weight = class_weight->data;
    if (features & HAS_SMOOTHING) o.label_smoothing = one_in(8) ? 1 : one_in(3) ? random_between(0, 1) : 0.1;
    if (features & HAS_TEMPERATURES)
        o.temperature = one_in(2); /* 0 or 1 */
    else if (features & HAS_TEMPERATURE)
        o.temperature = temperatures[random_bits() % 7];
    if (features & HAS_SOFTCAP) o.softcap = caps[random_bits() % 5];
    if (features & HAS_Z_LOSS) o.z_loss = one_in(2) ? 1e-4 : random_between(0, 1);
    if (features & HAS_LOG_BASE) o.log_base = bases[random_bits() % 3];
    return o;
}

static inline dtypes draw_dtypes(enum dtype d, int features)
{
    const dtypes held = {any_dtype(d, features), any_dtype(d, features), any_dtype(d, features), any_dtype(d, features),
                         any_dtype(d, features)};
    return held;
}

static inline general typed_general_of(enum dtype d, dtypes held, int features, ptrdiff_t n, ptrdiff_t n_classes,
                                       layout l, int at_end)
{
    general g;
    memset(&g, 0, sizeof g);
    g.p = typed_problem_of(d, held.logits, held.target, n, n_classes, l, at_end);
    g.features = features, g.held = held;
    g.direction = reals_of(arenas[DIRECTION], at_end, any_layout(), n, n_classes, held.direction);
    for (ptrdiff_t i = 0; i < n; ++i)
        for (ptrdiff_t k = 0; k < n_classes; ++k) put(&g.direction, i, k, random_between(-2, 3));
    draw_where(&g, at_end), draw_weights(&g, l, at_end), draw_temperatures(&g, l, at_end);
    draw_masses(&g, draw_n_masses(n), at_end);
    g.o = draw_options(features, &g.class_weight);
    g.hess_kind = (int)(random_bits() % 3);
    g.p.grad_scale = features & HAS_GRAD_OUTPUT ? 0.37 : 1;
    if (features & HAS_IGNORE_INDEX) {
        g.p.use_ignore_index = 1, g.p.ignore_index = get_label(&g.p, 0);
        if (n > 1 && one_in(2)) g.p.ignore_index = g.p.label_type < SOFTXENT_UINT8 ? -100 : 127;
        for (ptrdiff_t i = 1; i < n; ++i)
            if (one_in(4)) set_label(&g.p, i, g.p.ignore_index);
    }
    return g;
}

static inline general general_of(enum dtype d, int features, ptrdiff_t n, ptrdiff_t n_classes, layout l, int at_end)
{
    if (d == F64) features &= ~HAS_HALVES;
    if (features & HAS_SPARSE) features &= ~(HAS_TARGET | HAS_IGNORE_INDEX);
    return typed_general_of(d, draw_dtypes(d, features), features, n, n_classes, l, at_end);
}

/* Half of all problems leave out what second derivatives do not take: softcap and z_loss. Most have no sparse target
 * and no temperatures of samples, which take the place of other features. */
static inline int draw_features(void)
{
    int without = one_in(2) ? HAS_SOFTCAP | HAS_Z_LOSS : 0;
    const int some = (int)(random_bits() % (ALL_FEATURES + 1));
    if (!one_in(4)) without |= HAS_SPARSE;
    if (!one_in(4)) without |= HAS_TEMPERATURES;
    return (one_in(4) ? ALL_FEATURES & ~HAS_TARGET : some) & ~without;
}

/* ---- The exact answer ------------------------------------------------------------------------------------------- */

/* The numbers of one sample: logits as given, after the softcap, and the softcap's slope; exps; the target's density q
 * and the direction; and their sums. `depth` is how far a class lies below the maximum, over the temperature. */
typedef struct {
    long double x[MAX_CLASSES], z[MAX_CLASSES], slope[MAX_CLASSES], e[MAX_CLASSES], q[MAX_CLASSES], v[MAX_CLASSES];
    long double depth[MAX_CLASSES];
    long double max, rest, log_sum, lse, lead, weight, others_weight, sample_weight, upstream;
    long double temperature;
    long double top_v, mean_v, mean_v_error; /* v at the top; the mean of v - top_v; its error */
    long double cap_error, lse_error;        /* error of z / T because of the softcap; error of lse */
    int allowed[MAX_CLASSES];
    int ignored, has_nan, is_nan, is_confident;
} solution;

static solution solutions[MAX_SAMPLES];

static inline long double temperature_of(const general *g, ptrdiff_t i)
{
    if (g->features & HAS_TEMPERATURES) return entry(&g->temperatures, i, 0);
    return g->o.temperature == 0 ? 1 : g->o.temperature;
}

static inline long double log_base_of(const general *g) { return g->o.log_base == 0 ? 1 : g->o.log_base; }

static inline void solve_logit(const general *g, ptrdiff_t i, ptrdiff_t k, solution *a)
{
    const long double x = entry(&g->p.logits, i, k), c = g->o.softcap;
    a->x[k] = a->z[k] = x, a->slope[k] = 1;
    a->allowed[k] = is_allowed(g, i, k);
    if (c > 0) {
        const long double cosh_x = coshl(x / c);
        a->z[k] = isinf(x) ? x : c * tanhl(x / c);
        a->slope[k] = 1 / cosh_x / cosh_x;
    }
    if (!a->allowed[k]) a->z[k] = -INFINITY;
}

/* The entry of the target, dense or sparse, or of the distribution that a label stands for. */
static inline long double target_at(const general *g, ptrdiff_t i, ptrdiff_t k)
{
    if (g->features & HAS_SPARSE) return dense_target[i][k];
    return g->features & HAS_TARGET ? entry(&g->p.target, i, k) : k == get_label(&g->p, i);
}

/* The class that a rank is of: the label, or the first of the target's largest entries. */
static inline ptrdiff_t label_of(const general *g, ptrdiff_t i)
{
    ptrdiff_t first = 0;
    if (!(g->features & (HAS_TARGET | HAS_SPARSE))) return get_label(&g->p, i);
    for (ptrdiff_t k = 1; k < g->p.n_classes; ++k)
        if (target_at(g, i, k) > target_at(g, i, first)) first = k;
    return first;
}

static inline void solve_density(const general *g, ptrdiff_t i, solution *a)
{
    const long double e = g->o.label_smoothing;
    ptrdiff_t n_allowed = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) n_allowed += a->allowed[k];
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double t = g->is_divergence && !a->allowed[k] ? 0 : target_at(g, i, k);
        const long double w = g->o.class_weight ? entry(&g->class_weight, 0, k) : 1;
        a->q[k] = w * ((1 - e) * t + (a->allowed[k] ? e / (long double)n_allowed : 0));
    }
}

/* A direction in half precision is widened like any array. A removed class has no direction. */
static inline void solve_direction(const general *g, ptrdiff_t i, ptrdiff_t top, solution *a)
{
    long double among_ties = 0, size = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) a->v[k] = a->allowed[k] ? entry(&g->direction, i, k) : 0;
    a->top_v = a->v[top], a->mean_v = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double from_top = a->v[k] - a->top_v;
        a->mean_v += a->e[k] * from_top, size += a->e[k] * fabsl(from_top) * (isinf(a->z[k]) ? 1 : 1 + a->depth[k]);
        if (a->z[k] == a->max && fabsl(from_top) > among_ties) among_ties = fabsl(from_top);
    }
    a->mean_v /= 1 + a->rest;
    a->mean_v_error = size / (1 + a->rest) + 2 * among_ties; /* any of several maxima may be the top */
}

/* Every difference of two z / T may be off by `cap`: capped() is within 4 eps, and c itself is rounded. lse is off by
 * that too, and by the roundings of 1 / T and of the product with it. */
static inline void solve_errors(const general *g, ptrdiff_t i, solution *a)
{
    const long double eps = eps_of[g->p.d], temperature = temperature_of(g, i);
    long double largest = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k)
        if (isfinite(a->z[k]) && fabsl(a->z[k]) > largest) largest = fabsl(a->z[k]);
    a->cap_error = g->o.softcap > 0 ? 2 * 4.5L * eps * largest / temperature : 0;
    a->lse_error = 1.5L * eps * fabsl(a->max / temperature) + 4 * eps * (1 + a->lead) * a->log_sum + a->cap_error;
}

static inline void solve_general_sample(const general *g, ptrdiff_t i, solution *a)
{
    const problem *p = &g->p;
    const long double temperature = temperature_of(g, i);
    ptrdiff_t top = 0;
    a->max = -INFINITY, a->rest = 0, a->lead = INFINITY, a->weight = a->others_weight = 0, a->has_nan = 0;
    a->temperature = temperature;
    a->ignored =
        !(g->features & (HAS_TARGET | HAS_SPARSE)) && p->use_ignore_index && get_label(p, i) == p->ignore_index;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        solve_logit(g, i, k, a);
        a->has_nan |= isnan(a->z[k]) != 0;
        if (a->z[k] > a->max) a->max = a->z[k], top = k;
    }
    a->is_nan = a->has_nan || isinf(a->max);
    solve_density(g, i, a);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        a->depth[k] = (a->max - a->z[k]) / temperature;
        a->e[k] = wide_exp(-a->depth[k]);
        a->weight += a->q[k];
        if (a->z[k] < a->max) a->others_weight += a->q[k];
        if (k == top) continue;
        a->rest += a->e[k];
        if (a->depth[k] < a->lead) a->lead = a->depth[k];
    }
    if (isinf(a->lead)) a->lead = 0;
    a->is_confident = a->rest < 1;
    a->log_sum = log1pl(a->rest), a->lse = a->max / temperature + a->log_sum;
    a->sample_weight = g->features & HAS_SAMPLE_WEIGHT ? entry(&g->sample_weight, i, 0) : 1;
    a->upstream = p->grad_scale * (g->features & HAS_GRAD_OUTPUT ? entry(&p->grad_output, i, 0) : 1) *
                  a->sample_weight / temperature;
    solve_direction(g, i, top, a), solve_errors(g, i, a);
}

/* Clears what an operation does not look at. The softmax family looks at the temperature and `where` alone; the entropy
 * at the weights and temperatures of samples too. So do the products with its Jacobians. The Jacobian itself looks at
 * neither. The divergence looks at the target too, which is then a dense one. */
enum view { OF_LOSS = 1, OF_FAMILY, OF_JACOBIAN, OF_DIVERGENCE, OF_ENTROPY };

static inline enum view view_of(enum op op)
{
    return is_of_labels(op)    ? OF_LOSS
           : op == JACOBIAN    ? OF_JACOBIAN
           : is_divergence(op) ? OF_DIVERGENCE
           : is_entropy(op)    ? OF_ENTROPY
                               : OF_FAMILY;
}

static inline general seen_by(const general *g, enum op op)
{
    general seen = *g;
    if (view_of(op) != OF_LOSS) seen.o.softcap = 0;
    if (!is_weighted(op)) seen.features &= ~HAS_TEMPERATURES;
    if (view_of(op) == OF_DIVERGENCE) {
        seen.o.z_loss = seen.o.label_smoothing = seen.o.log_base = 0, seen.o.class_weight = NULL;
        seen.features = (seen.features | HAS_TARGET) & ~HAS_SPARSE, seen.is_divergence = 1;
    }
    if (view_of(op) == OF_JACOBIAN) seen.o.temperature = 0, seen.features &= ~HAS_WHERE;
    return seen;
}

static inline void solve_general(general *g, enum op op)
{
    const general seen = seen_by(g, op);
    if (g->solved_for == (int)view_of(op)) return;
    for (ptrdiff_t i = 0; i < g->p.n; ++i) solve_general_sample(&seen, i, &solutions[i]);
    g->solved_for = (int)view_of(op);
}

/* ---- Expectations ----------------------------------------------------------------------------------------------- */

/* The bound is 4 eps (1 + distance) for what is made of exps and log S. Each rounding of a factor adds half an eps:
 * three of q, two of 1 / T, and those of the upstream gradient, the base and the sample's weight. */
static const long double ROUNDINGS = 1;

static inline long double relative(const general *g, long double depth)
{
    return eps_of[g->p.d] * (4 * (1 + (isinf(depth) ? 0 : depth)) + ROUNDINGS);
}

static inline void set_expected(ptrdiff_t j, long double out, long double error)
{
    expected.out[j] = out, expected.out_error[j] = error;
}

/* Adds what a result may lose if its exp became 0 below the smallest normal number before it was scaled. */
static inline long double flush(const general *g, long double scale)
{
    return min_normal_of[g->p.d] * (1 + fabsl(scale));
}

static inline void expect_loss(const general *g, ptrdiff_t i, const solution *a)
{
    const long double base = log_base_of(g), z_loss = g->o.z_loss, s = a->sample_weight, eps = eps_of[g->p.d];
    long double nats = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k)
        if (a->q[k] != 0) nats += a->q[k] * (a->log_sum + a->depth[k]);
    const long double loss = s * (nats / base + z_loss * a->lse * a->lse);
    const long double of_nats = relative(g, a->lead) * nats + a->cap_error * a->weight;
    const long double of_z = z_loss * ((2 * fabsl(a->lse) + a->lse_error) * a->lse_error + 3 * eps * a->lse * a->lse);
    expected.loss[i] = loss, expected.loss_error[i] = 0;
    if (isfinite(loss) && isfinite(nats))
        expected.loss_error[i] =
            s * (of_nats / fabsl(base) + of_z) + flush(g, s * (1 + a->weight) * (1 + 1 / fabsl(base)));
}

/* p W - q and the part of z_loss have errors in proportion to their sizes. At the top of a confident sample the sizes
 * are those of what the other classes have of p and q, as is promised for the label. */
static inline void expect_gradient(const general *g, ptrdiff_t i, const solution *a)
{
    const long double base = log_base_of(g), eps = eps_of[g->p.d];
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const int is_top = a->is_confident && a->z[k] == a->max;
        const long double p = a->e[k] / (1 + a->rest), p_part = a->weight * (is_top ? a->rest / (1 + a->rest) : p);
        const long double q_part = is_top ? a->others_weight : a->q[k];
        const long double error = relative(g, is_top ? a->lead : a->depth[k]);
        const long double pull = 2 * g->o.z_loss * a->lse * p, scale = a->upstream * a->slope[k];
        const long double x = scale * ((is_top ? q_part - p_part : p_part - q_part) / base + pull);
        const long double of_pull =
            fabsl(pull) * (relative(g, a->depth[k]) + a->cap_error) + 2 * g->o.z_loss * p * a->lse_error;
        const long double of_parts = (error * (p_part + q_part) + a->cap_error * p_part) / fabsl(base);
        const long double depth_in_cap = g->o.softcap > 0 && x != 0 ? 1 + fabsl(a->x[k] / g->o.softcap) : 0;
        const long double whole = (1 + a->weight) * (1 + 1 / fabsl(base)) + 2 * g->o.z_loss * fabsl(a->lse);
        const long double flushed = flush(g, a->upstream * whole);
        const long double of_all =
            fabsl(scale) * (of_parts + of_pull) + 5 * eps * depth_in_cap * fabsl(x) + 4 * flushed;
        set_expected(i * g->p.n_classes + k, a->allowed[k] ? x : 0, a->allowed[k] ? of_all : 0);
    }
}

static inline long double hess_scale(const general *g, const solution *a)
{
    return a->weight * a->upstream / a->temperature / log_base_of(g);
}

static inline void expect_hess(const general *g, ptrdiff_t i, const solution *a)
{
    const long double c = (long double)g->p.n_classes;
    const long double kind = g->hess_kind == SOFTXENT_XGBOOST ? 2 : g->hess_kind == SOFTXENT_LIGHTGBM ? c / (c - 1) : 1;
    const long double w = hess_scale(g, a) * (c > 1 || g->hess_kind == SOFTXENT_XGBOOST ? kind : 1);
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const ptrdiff_t j = i * g->p.n_classes + k;
        const int is_top = a->is_confident && a->z[k] == a->max;
        const long double p = a->e[k] / (1 + a->rest);
        const long double x = w * p * (is_top ? a->rest / (1 + a->rest) : 1 - p);
        const long double error = relative(g, is_top ? a->lead : a->depth[k]) * fabsl(x) + flush(g, w);
        const int is_floored = g->hess_kind == SOFTXENT_XGBOOST && x < 1e-16L;
        expected.hess[j] = !a->allowed[k] ? 0 : is_floored ? 1e-16L : x;
        expected.hess_error[j] = a->allowed[k] ? error + (is_floored ? eps_of[g->p.d] * 1e-16L : 0) : 0;
    }
}

/* w p_k (v_k - sum p v): the error of the difference is in proportion to the sizes of its parts, counted from the value
 * at the maximum. The factor w p_k may have become 0. The product with log_softmax's Jacobian is without p_k. */
static inline void expect_product(const general *g, ptrdiff_t i, const solution *a, enum op op)
{
    const long double w = op == HVP ? hess_scale(g, a) : 1 / temperature_of(g, i);
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double p = op == LOG_JVP ? w : w * a->e[k] / (1 + a->rest), from_top = a->v[k] - a->top_v;
        const long double error = relative(g, a->depth[k]) * fabsl(p) * (fabsl(from_top) + a->mean_v_error);
        set_expected(i * g->p.n_classes + k, a->allowed[k] ? p * (from_top - a->mean_v) : 0,
                     a->allowed[k] ? error + flush(g, (1 + fabsl(w)) * (fabsl(from_top) + a->mean_v_error)) : 0);
    }
}

/* (v_k - p_k sum v) / T, with the errors of a gradient whose density is v: at a confident sample's top both parts are
 * sums over the other classes. */
static inline void expect_transposed(const general *g, ptrdiff_t i, const solution *a)
{
    const ptrdiff_t c = g->p.n_classes;
    long double sum = 0, size = 0, top_sum = 0, top_size = 0;
    for (ptrdiff_t k = 0; k < c; ++k) {
        sum += a->v[k], size += fabsl(a->v[k]);
        if (a->z[k] == a->max) top_sum += a->v[k], top_size += fabsl(a->v[k]);
    }
    for (ptrdiff_t k = 0; k < c; ++k) {
        const int is_top = a->is_confident && a->z[k] == a->max;
        const long double w = 1 / temperature_of(g, i), p = a->e[k] / (1 + a->rest), not_p = a->rest / (1 + a->rest);
        const long double x = is_top ? top_sum * not_p - (sum - top_sum) * (1 - not_p) : a->v[k] - p * sum;
        const long double parts = is_top ? size * not_p + (size - top_size) : fabsl(a->v[k]) + p * size;
        const long double error =
            relative(g, is_top ? a->lead : a->depth[k]) * parts * w + 4 * flush(g, w * (1 + size));
        set_expected(i * c + k, a->allowed[k] ? w * x : 0, a->allowed[k] ? error : 0);
    }
}

/* dL/dT = s ((W mean - sum q depth) / ln b + 2 a lse (mean - m / T)) upstream, with the mean of the depths, which the
 * general kernel has for the entropy too. All are differences, whose errors are in proportion to their parts. */
static inline void expect_temperature_grad(const general *g, ptrdiff_t i, const solution *a)
{
    const long double base = log_base_of(g), eps = eps_of[g->p.d], pull = 2 * g->o.z_loss * a->lse;
    const measured mean = mean_depth_of(g->p.d, g->p.n_classes, a->e, a->depth, 1 + a->rest);
    const long double mean_error = mean.error + a->cap_error * (1 + 2 * mean.value), top = a->max / a->temperature;
    long double cost = 0;
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k)
        if (a->q[k] != 0) cost += a->q[k] * a->depth[k];
    const long double of_costs =
        a->weight * (mean_error + relative(g, 0) * mean.value + a->cap_error) + relative(g, 0) * cost;
    const long double of_lse = fabsl(2 * g->o.z_loss * a->lse_error * (mean.value - top)) +
                               fabsl(pull) * (mean_error + a->cap_error + relative(g, 0) * (mean.value + fabsl(top)));
    const long double x = (a->weight * mean.value - cost) / base + pull * (mean.value - top);
    expected.temperature_grad[i] = a->upstream * x;
    expected.temperature_grad_error[i] =
        isinf(cost) ? 0
                    : fabsl(a->upstream) * (of_costs / fabsl(base) + of_lse + eps * fabsl(x)) +
                          DEEPEST * flush(g, a->upstream * (1 + a->weight) * (1 + 1 / fabsl(base)) * (1 + fabsl(pull)));
}

static inline void expect_general_entropy(const general *g, ptrdiff_t i, const solution *a)
{
    const measured log_sum = {a->log_sum, 4 * eps_of[g->p.d] * (1 + a->lead) * a->log_sum};
    expect_entropy(&g->p, i, a->e, a->depth, 1 + a->rest, log_sum, a->sample_weight, a->upstream);
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k)
        if (!a->allowed[k]) set_expected(i * g->p.n_classes + k, 0, 0);
}

static inline void expect_family(const general *g, ptrdiff_t i, const solution *a, enum op op)
{
    const long double eps = eps_of[g->p.d];
    expected.loss[i] = a->lse, expected.loss_error[i] = a->lse_error + eps * fabsl(a->lse) + flush(g, 1);
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        const long double x = op == SOFTMAX ? a->e[k] / (1 + a->rest) : -a->depth[k] - a->log_sum;
        const long double depth = op == SOFTMAX ? a->depth[k] : a->z[k] == a->max ? a->lead : 0;
        const long double error = 4 * eps * (1 + (isinf(depth) ? 0 : depth)) * fabsl(x) + flush(g, 1);
        set_expected(i * g->p.n_classes + k, x, a->allowed[k] && isfinite(x) ? error : 0);
    }
}

/* A product of two p. At the top of a confident sample, 1 - p is the sum of the p of the other classes. */
static inline void expect_jacobian(const general *g, ptrdiff_t i, const solution *a)
{
    const ptrdiff_t c = g->p.n_classes;
    for (ptrdiff_t k = 0; k < c; ++k)
        for (ptrdiff_t j = 0; j < c; ++j) {
            const long double p = a->e[k] / (1 + a->rest), p_j = a->e[j] / (1 + a->rest);
            const int is_top = a->is_confident && a->z[k] == a->max;
            const long double not_p = is_top ? a->rest / (1 + a->rest) : 1 - p, x = k == j ? p * not_p : -p * p_j;
            const long double error =
                relative(g, k == j && is_top ? a->lead : a->depth[k]) + (k == j ? 0 : relative(g, a->depth[j]));
            set_expected((i * c + k) * c + j, x, a->allowed[k] && a->allowed[j] ? error * fabsl(x) + flush(g, 1) : 0);
        }
}

/* Whether a sample does not count: its label is to be ignored, or its weight is 0. */
static inline int is_left_alone(const solution *a, enum op op)
{
    return (is_of_labels(op) && a->ignored) || (is_weighted(op) && a->sample_weight == 0);
}

/* Results that must be exact: nan, and the zeros of removed classes and of samples that do not count. */
static inline void expect_nothing(const general *g, ptrdiff_t i, const solution *a, enum op op)
{
    const long double nothing = op == LOG_SOFTMAX ? -INFINITY : 0;
    const int ignored = is_left_alone(a, op);
    const ptrdiff_t c = g->p.n_classes, rows = op == JACOBIAN ? c : 1;
    expected.loss[i] = ignored ? 0 : op == LOGSUMEXP && !a->has_nan ? a->max : NAN;
    expected.loss_error[i] = 0;
    expected.temperature_grad[i] = ignored ? 0 : NAN, expected.temperature_grad_error[i] = 0;
    for (ptrdiff_t row = 0; row < rows; ++row)
        for (ptrdiff_t k = 0; k < c; ++k) {
            const int is_there = a->allowed[k] && (rows == 1 || a->allowed[row]) && !ignored;
            set_expected((i * rows + row) * c + k, is_there ? NAN : nothing, 0);
            if (rows == 1) expected.hess[i * c + k] = is_there ? NAN : 0, expected.hess_error[i * c + k] = 0;
        }
}

#include "divergence.h"

/* `teacher` says that the target of a divergence holds logits. */
static inline void expect_sample(const general *g, ptrdiff_t i, const solution *a, enum op op, int teacher)
{
    expect_rank(i, a->x, a->allowed, g->p.n_classes, a->ignored ? 0 : label_of(g, i));
    if (is_left_alone(a, op)) ranked.rank[i] = ranked.top[i] = -1;
    if (a->is_nan || is_left_alone(a, op)) {
        expect_nothing(g, i, a, op);
        return;
    }
    switch (op) {
    case LOSS_GRAD: expect_gradient(g, i, a), expect_hess(g, i, a); /* fall through */
    case RANK:
    case LOSS: expect_loss(g, i, a), expect_temperature_grad(g, i, a); break;
    case ENTROPY:
    case ENTROPY_GRAD: expect_general_entropy(g, i, a); break;
    case KL:
    case KL_GRAD: teacher ? expect_teacher(g, i, a) : expect_divergence(g, i, a); break;
    case HVP:
    case LOG_JVP:
    case JVP: expect_product(g, i, a, op); break;
    case LOG_VJP: expect_transposed(g, i, a); break;
    case JACOBIAN: expect_jacobian(g, i, a); break;
    default: expect_family(g, i, a, op); break;
    }
}

/* ---- Asking ----------------------------------------------------------------------------------------------------- */

typedef struct {
    enum op op;
    int accumulate, in_place, other_layout, hess;
    int shards; /* the number of parts that the classes are in; 0: the classes are not divided */
    int temperature_grad;
    int teacher; /* the target of a divergence holds logits: the direction is the teacher's */
} question;

static inline void expect_general(general *g, const question *q)
{
    const general seen = seen_by(g, q->op);
    solve_general(g, q->op);
    for (ptrdiff_t i = 0; i < g->p.n; ++i) expect_sample(&seen, i, &solutions[i], q->op, q->teacher);
    for (ptrdiff_t j = 0; j < g->p.n * g->p.n_classes && q->accumulate; ++j)
        if (expected.out[j] != 0 || expected.out_error[j] != 0) {
            expected.out[j] += HELD;
            expected.out_error[j] += eps_of[g->p.d] * fabsl(expected.out[j]);
        } else
            expected.out[j] = HELD;
}

static inline void give_masses(softxent_block *b, const general *g)
{
    b->classes = g->classes.data, b->masses = g->masses.data;
    b->n_masses = g->masses.n_classes, b->masses_stride = g->masses.sample_stride;
}

/* What a divergence is of: the target, whatever the losses are of, or the logits of a teacher. */
static inline void give_divergence(softxent_block *b, const general *g, int teacher)
{
    give_target(b, &g->p);
    b->target_holds_logits = teacher;
    if (!teacher) return;
    b->target = g->direction.data, b->target_type = element_type(g->direction.d);
    b->target_sample_stride = g->direction.sample_stride, b->target_class_stride = g->direction.class_stride;
}

/* Fills in every input that the problem has, whether the operation looks at it or not, and no output. */
static inline softxent_block general_block(const general *g, const softxent_isa *isa)
{
    softxent_block b = block_of(&g->p, isa);
    b.label_type = g->p.label_type;
    b.temperatures_stride = g->temperatures.sample_stride, b.temperature_grad_stride = 1;
    if (g->features & HAS_TEMPERATURES) b.temperatures = (const double *)(const void *)g->temperatures.data;
    b.options = &g->o, b.hess_kind = g->hess_kind;
    b.use_ignore_index = g->p.use_ignore_index, b.ignore_index = g->p.ignore_index;
    b.logits_type = element_type(g->p.logits.d), b.target_type = element_type(g->p.target.d);
    b.loss_type = element_type(g->held.loss), b.out_type = element_type(g->held.out);
    if (g->features & HAS_SPARSE)
        give_masses(&b, g);
    else if (g->features & HAS_TARGET)
        give_target(&b, &g->p);
    else
        give_labels(&b, &g->p);
    if (g->features & HAS_GRAD_OUTPUT) give_grad_output(&b, &g->p);
    if (g->features & HAS_SAMPLE_WEIGHT)
        b.sample_weight = g->sample_weight.data, b.sample_weight_stride = g->sample_weight.sample_stride;
    if (g->features & HAS_WHERE)
        b.where = g->where.data, b.where_sample_stride = g->where.sample_stride,
        b.where_class_stride = g->where.class_stride;
    b.direction = g->direction.data, b.direction_type = element_type(g->direction.d);
    b.direction_sample_stride = g->direction.sample_stride, b.direction_class_stride = g->direction.class_stride;
    return b;
}

/* Where the answer to a question goes. A Jacobian is laid out as if each of its rows were a sample. */
static inline array out_array_of(const general *g, const question *q, layout l, int at_end)
{
    const layout out_layout = q->other_layout ? layouts[(g->p.n + g->p.n_classes + 3) % N_LAYOUTS] : l;
    if (q->in_place) return g->p.logits;
    const ptrdiff_t rows = q->op == JACOBIAN ? g->p.n_classes : 1;
    return reals_of(arenas[OUT], at_end, out_layout, g->p.n * rows, g->p.n_classes, g->held.out);
}

static inline void give_general_out(softxent_block *b, const general *g, const question *q, const array *out)
{
    give_out(b, out);
    b->out_type = element_type(out->d);
    if (q->op != JACOBIAN) return;
    b->out_row_stride = out->sample_stride, b->out_sample_stride = g->p.n_classes * out->sample_stride;
}

/* Asks one instruction set, and compares its answer with `expected`. */
static inline void check_question(const general *g, const question *q, layout l, int at_end, const softxent_isa *isa)
{
    static _Alignas(double) unsigned char logits[ARENA_BYTES];
    const problem *p = &g->p;
    const array out_array = out_array_of(g, q, l, at_end);
    const layout hess_layout = layouts[(p->n + 2 * p->n_classes) % N_LAYOUTS];
    const array hess_array = reals_of(arenas[HESS_OUT], at_end, hess_layout, p->n, p->n_classes, out_array.d);
    output loss = output_of(reals_of(arenas[LOSS_OUT], at_end, l, p->n, 1, g->held.loss), 77, arenas[LOSS_OUT], 0);
    output out = q->in_place ? snapshot(out_array, arenas[LOGITS], 1)
                             : output_of(out_array, q->accumulate ? HELD : 77, arenas[OUT], 1);
    output hess = output_of(hess_array, 77, arenas[HESS_OUT], 2);
    output grads =
        output_of(reals_of(arenas[TEMPERATURE_GRAD], at_end, l, p->n, 1, F64), 77, arenas[TEMPERATURE_GRAD], 3);
    const int has_loss = writes_loss(q->op);
    const int has_out = has_output(q->op);
    softxent_block b = general_block(g, isa);
    if (is_divergence(q->op)) give_divergence(&b, g, q->teacher);
    if (q->temperature_grad) b.temperature_grad = (double *)(void *)grads.x.data;
    b.temperature_grad_stride = grads.x.sample_stride;
    give_ranks(&b, 1 + p->n % 2);
    if (has_loss) give_loss(&b, &loss.x);
    if (has_out) give_general_out(&b, g, q, &out.x);
    if (q->hess) b.hess = hess.x.data;
    b.hess_sample_stride = hess.x.sample_stride, b.hess_class_stride = hess.x.class_stride;
    b.accumulate = q->accumulate;
    memcpy(logits, p->logits.base, p->logits.bytes);

    ptrdiff_t bad = -5;
    const int status = q->shards ? call_in_shards(p->d, &b, q->shards, &bad) : call(q->op, p->d, &b, &bad);
    CHECK(status == SOFTXENT_OK && bad == -5);
    if (has_loss) check_output(&loss, expected.loss, expected.loss_error);
    if (has_out) check_output(&out, expected.out, expected.out_error);
    if (q->hess) check_output(&hess, expected.hess, expected.hess_error);
    if (q->temperature_grad) check_output_of(p->d, &grads, expected.temperature_grad, expected.temperature_grad_error);
    check_ranks(&b, q->op == RANK ? p->n : 0);
    if (!q->temperature_grad) check_untouched(&grads, 0);
    if (!has_loss) check_untouched(&loss, 0);
    if (!has_out) check_untouched(&out, 0);
    if (!q->hess) check_untouched(&hess, 0);
    if (!q->in_place) CHECK(memcmp(logits, p->logits.base, p->logits.bytes) == 0);
    memcpy(p->logits.base, logits, p->logits.bytes);
}

static inline void about_general(const general *g, const question *q, layout l)
{
    const softxent_options *o = &g->o;
    ABOUT("%s%s%s%s%s%s%s %s(%s,%s>%s), %s, %dx%d, has %x, T %.4g c %.4g e %.2g a %.2g ln b %.2g", op_name(q->op),
          q->accumulate ? " +=" : "", q->in_place ? " in place" : "", q->other_layout ? " other layout" : "",
          q->hess ? " hess" : "", q->temperature_grad ? " dT" : "", q->teacher ? " teacher" : "", dtype_name[g->p.d],
          dtype_name[g->p.logits.d], dtype_name[g->p.target.d], dtype_name[g->held.out], l.name, (int)g->p.n,
          (int)g->p.n_classes, (unsigned)g->features, o->temperature, o->softcap, o->label_smoothing, o->z_loss,
          o->log_base);
}

/* Whether a question has an answer. Second derivatives take no softcap and no z_loss. Parts take no targets, no class
 * weights and no temperatures of samples. A Jacobian must fit into the arena. */
static inline int can_ask(const general *g, const question *q)
{
    if ((g->o.softcap > 0 || g->o.z_loss > 0) && (q->op == HVP || q->hess)) return 0;
    if (q->shards && g->features & (HAS_TARGET | HAS_SPARSE | HAS_CLASS_WEIGHT | HAS_SMOOTHING | HAS_TEMPERATURES))
        return 0;
    return q->op != JACOBIAN || g->p.n * g->p.n_classes * g->p.n_classes <= MAX_ENTRIES / 4;
}

static const question questions[] = {
    {.op = LOSS},
    {.op = LOSS, .temperature_grad = 1},
    {.op = LOSS_GRAD},
    {.op = LOSS_GRAD, .other_layout = 1, .hess = 1},
    {.op = LOSS_GRAD, .accumulate = 1, .other_layout = 1},
    {.op = LOSS_GRAD, .accumulate = 1, .hess = 1},
    {.op = LOSS_GRAD, .in_place = 1, .hess = 1},
    {.op = LOSS_GRAD, .in_place = 1},
    {.op = LOSS_GRAD, .hess = 1, .temperature_grad = 1},
    {.op = LOSS_GRAD, .in_place = 1, .temperature_grad = 1},
    {.op = HVP},
    {.op = HVP, .other_layout = 1},
    {.op = HVP, .in_place = 1},
    {.op = SOFTMAX},
    {.op = SOFTMAX, .other_layout = 1},
    {.op = SOFTMAX, .in_place = 1},
    {.op = LOG_SOFTMAX},
    {.op = LOG_SOFTMAX, .other_layout = 1},
    {.op = LOG_SOFTMAX, .in_place = 1},
    {.op = LOGSUMEXP},
    {.op = KL},
    {.op = KL_GRAD},
    {.op = KL_GRAD, .other_layout = 1, .accumulate = 1},
    {.op = KL_GRAD, .in_place = 1},
    {.op = KL, .teacher = 1},
    {.op = KL_GRAD, .teacher = 1},
    {.op = KL_GRAD, .other_layout = 1, .accumulate = 1, .teacher = 1},
    {.op = KL_GRAD, .in_place = 1, .teacher = 1},
    {.op = ENTROPY},
    {.op = ENTROPY_GRAD},
    {.op = ENTROPY_GRAD, .other_layout = 1, .accumulate = 1},
    {.op = ENTROPY_GRAD, .in_place = 1},
    {.op = JVP},
    {.op = JVP, .in_place = 1},
    {.op = LOG_JVP},
    {.op = LOG_JVP, .other_layout = 1},
    {.op = LOG_JVP, .in_place = 1},
    {.op = LOG_VJP},
    {.op = LOG_VJP, .other_layout = 1},
    {.op = LOG_VJP, .in_place = 1},
    {.op = JACOBIAN},
    {.op = JACOBIAN, .other_layout = 1},
    {.op = RANK},
    {.op = LOSS, .shards = 3},
    {.op = LOSS_GRAD, .shards = 2},
    {.op = LOSS_GRAD, .accumulate = 1, .other_layout = 1, .shards = 3},
    {.op = LOSS_GRAD, .in_place = 1, .shards = 2},
};

enum { N_QUESTIONS = sizeof questions / sizeof questions[0] };

static inline void ask(general *g, const question *q, layout l, int at_end)
{
    if (!can_ask(g, q)) return;
    expect_general(g, q);
    about_general(g, q, l);
    EACH_ISA check_question(g, q, l, at_end, *isa);
}

/* Asks for the divergences of the target and of the teacher. */
static inline void check_divergences(general *g, layout l, int at_end)
{
    for (const question *q = questions; q < questions + N_QUESTIONS; ++q)
        if (is_divergence(q->op)) ask(g, q, l, at_end);
}

/* Asks every `step`-th of the questions that the problem has an answer to. */
static inline void check_general_problem(general *g, layout l, int at_end, int step)
{
    for (int i = (int)(random_bits() % (uint64_t)step); i < N_QUESTIONS; i += step) ask(g, &questions[i], l, at_end);
}

#endif
