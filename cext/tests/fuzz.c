/* fuzz.c - any call of any public function, drawn from bytes, and what must be so of it, whatever it is.
 *
 * A target for libFuzzer, to be built with the sanitizers; with STANDALONE, a program that draws the bytes itself (its
 * arguments are at the end of this file). quality.sh does either. Every array is allocated as large as its strides
 * reach and no larger, so that the sanitizer sees what lies outside. Numbers are not judged here but for what is exact:
 *
 *   - a refused call has written nothing, and a call that stopped at a label just the samples before it, where the
 *     outputs' entries lie and nowhere between them; inputs stay as they were;
 *   - the label it stopped at is the first that is no class;
 *   - a sample has the same bits alone as in its block, and in other strides and places in memory;
 *   - a sample that is ignored or has weight 0 has loss 0 and gradient 0; a probability is within [0, 1], its logarithm
 *     is not above 0; an entropy or a divergence is not below 0;
 *   - ranks and tops are what counting gives. */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "functions.h"
#include "half.h"
#include "softxent.h"

/* ---- The bytes ------------------------------------------------------------------------------------------------- */

/* After the end of the input all bytes are zeros, which choose the plain case. */
typedef struct {
    const uint8_t *next, *end;
} reader;

static unsigned byte_from(reader *r) { return r->next < r->end ? *r->next++ : 0; }

static uint64_t bits_from(reader *r)
{
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | byte_from(r);
    return bits;
}

static int below(int n, reader *r)
{
    const unsigned low = byte_from(r);
    return (int)((n > 256 ? low << 8 | byte_from(r) : low) % (unsigned)n);
}

static int one_in(int n, reader *r) { return below(n, r) == n - 1; }

/* splitmix64: Steele, Lea and Flood, OOPSLA 2014. */
static uint64_t random_bits(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* ---- Arrays ---------------------------------------------------------------------------------------------------- */

/* What an entry of an array is: a number with so many bits of fraction, or an integer if fraction is 0. */
typedef struct {
    int size, fraction, bias;
} format;

static const format f32 = {4, 23, 127}, f64 = {8, 52, 1023}, f16 = {2, 10, 15}, bf16 = {2, 7, 127};

/* The axes of an array: samples, rows and classes. Only a Jacobian has more than one row. `first` is the place of the
 * entry (0, 0, 0), in entries. */
typedef struct {
    unsigned char *memory;
    size_t bytes;
    ptrdiff_t first, count[3], stride[3];
    format f;
} array;

/* How the three axes lie in memory. */
typedef struct {
    int order; /* which axis is the innermost, and which comes next */
    int gap[3], flip[3],
        fixed; /* entries left out between the axis's own; whether it runs backwards, or is one entry */
    int slack; /* entries before the first one: the array may start at an odd address */
} layout;

static layout draw_layout(reader *r)
{
    layout l = {0, {0, 0, 0}, {0, 0, 0}, -1, 0};
    if (one_in(2, r)) l.slack = below(16, r);
    if (!one_in(2, r)) return l;
    l.order = below(6, r);
    for (int axis = 0; axis < 3; ++axis) l.gap[axis] = one_in(3, r) ? below(4, r) : 0, l.flip[axis] = one_in(4, r);
    if (one_in(6, r)) l.fixed = below(3, r);
    return l;
}

static void lay_out(array *x, layout l)
{
    static const int inner_to_outer[6][3] = {{2, 1, 0}, {0, 2, 1}, {2, 0, 1}, {1, 2, 0}, {0, 1, 2}, {1, 0, 2}};
    ptrdiff_t extent = 1; /* from the first entry to behind the last one, over the axes that lie inside this one */
    int is_empty = 0;
    x->first = l.slack;
    for (int i = 0; i < 3; ++i) {
        const int axis = inner_to_outer[l.order][i];
        const ptrdiff_t steps = x->count[axis] > 0 ? x->count[axis] - 1 : 0;
        const ptrdiff_t stride = axis == l.fixed ? 0 : extent + l.gap[axis];
        x->stride[axis] = l.flip[axis] ? -stride : stride;
        x->first += l.flip[axis] ? steps * stride : 0;
        extent += steps * stride;
        is_empty |= x->count[axis] == 0;
    }
    x->bytes = is_empty ? 0 : (size_t)((l.slack + extent) * x->f.size);
    if (is_empty) x->first = 0;
    x->memory = (unsigned char *)malloc(x->bytes + !x->bytes);
    if (!x->memory) abort();
    memset(x->memory, 0xa5, x->bytes);
}

static unsigned char *entry_of(const array *x, ptrdiff_t i, ptrdiff_t row, ptrdiff_t k)
{
    return x->memory + (x->first + i * x->stride[0] + row * x->stride[1] + k * x->stride[2]) * x->f.size;
}

static uint64_t bits_at(const unsigned char *entry, format f)
{
    uint16_t half;
    uint32_t word;
    uint64_t bits;
    switch (f.size) {
    case 1: return *entry;
    case 2: memcpy(&half, entry, sizeof half); return half;
    case 4: memcpy(&word, entry, sizeof word); return word;
    default: memcpy(&bits, entry, sizeof bits); return bits;
    }
}

static void put_bits(unsigned char *entry, format f, uint64_t bits)
{
    const uint16_t half = (uint16_t)bits;
    const uint32_t word = (uint32_t)bits;
    switch (f.size) {
    case 1: *entry = (unsigned char)bits; break;
    case 2: memcpy(entry, &half, sizeof half); break;
    case 4: memcpy(entry, &word, sizeof word); break;
    default: memcpy(entry, &bits, sizeof bits); break;
    }
}

static double number_at(const unsigned char *entry, format f)
{
    float x;
    double y;
    switch (f.size) {
    case 2: return value_of_half(f.fraction == f16.fraction ? f16_format : bf16_format, (uint16_t)bits_at(entry, f));
    case 4: memcpy(&x, entry, sizeof x); return (double)x;
    default: memcpy(&y, entry, sizeof y); return y;
    }
}

/* Whether two entries have the same bits, or are both nan. */
static int is_same(const unsigned char *a, const unsigned char *b, format f)
{
    if (memcmp(a, b, (size_t)f.size) == 0) return 1;
    return f.fraction && isnan(number_at(a, f)) && isnan(number_at(b, f));
}

/* Whether an entry is 0, of either sign. */
static int is_same_number(const unsigned char *a, const unsigned char *b, format f)
{
    return is_same(a, b, f) || number_at(a, f) == number_at(b, f);
}

/* Whether all entries of one sample are 0. */
#define EACH_ENTRY(x)                                                                                                  \
    for (ptrdiff_t row = 0; row < (x)->count[1]; ++row)                                                                \
        for (ptrdiff_t k = 0; k < (x)->count[2]; ++k)

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

enum { LOGITS, LABELS, TARGET, WHERE, DIRECTION, CLASS_WEIGHT, SAMPLE_WEIGHT, GRAD_OUTPUT, OTHER_PARTS, CLASSES };
enum { MASSES = CLASSES + 1, TEMPERATURES, N_INPUTS };
enum { PARTS = N_INPUTS, LOSS, OUT, HESS, RANKS, TOPS, TEMPERATURE_GRAD, N_ARRAYS };

#define SET(array) (1u << (array))
enum { CHECK_LABELS = N_OPS, TOTAL_WEIGHT, N_FUNCTIONS }; /* functions beside the operations */

static const char *name_of(int function)
{
    return function == CHECK_LABELS   ? "check_labels"
           : function == TOTAL_WEIGHT ? "total_weight"
                                      : functions_of((softxent_op)function)->name;
}

/* Whether a function takes labels or a target. */
static int has_labels(int function)
{
    return function >= CHECK_LABELS || functions_of((softxent_op)function)->bad_sample[0];
}

/* Whether a function takes a sparse target, in place of labels or a target. */
static int takes_masses(int function)
{
    if (function >= CHECK_LABELS) return function == TOTAL_WEIGHT;
    return has_trait((softxent_op)function, NEEDS_LABELS | NEEDS_TARGET);
}

/* Whether a function looks at the temperatures of samples. */
static int takes_temperatures(int function)
{
    if (function >= CHECK_LABELS) return 0;
    const softxent_op op = (softxent_op)function;
    return has_trait(op, HEEDS_OPTIONS) || (has_trait(op, HEEDS_WEIGHTS) && has_trait(op, HEEDS_TEMPERATURE));
}

/* Whether a function looks at the weights of samples. */
static int takes_weights(int function)
{
    return function < CHECK_LABELS && has_trait((softxent_op)function, HEEDS_OPTIONS | HEEDS_WEIGHTS);
}

/* The arrays that a function must have, besides labels or a target. */
static unsigned needs_of(int function)
{
    const softxent_op op = (softxent_op)function;
    unsigned needs = 0;
    if (function == CHECK_LABELS) return SET(LABELS);
    if (function == TOTAL_WEIGHT) return 0;
    if (has_trait(op, NEEDS_LOGITS)) needs |= SET(LOGITS);
    if (has_trait(op, NEEDS_SHARD)) needs |= SET(LABELS) | SET(PARTS);
    if (has_trait(op, NEEDS_PARTS)) needs |= SET(PARTS);
    if (has_trait(op, NEEDS_OTHER_PARTS)) needs |= SET(OTHER_PARTS);
    if (has_trait(op, NEEDS_DENSE_TARGET)) needs |= SET(TARGET);
    if (has_trait(op, NEEDS_DIRECTION)) needs |= SET(DIRECTION);
    if (has_trait(op, NEEDS_LOSS)) needs |= SET(LOSS);
    if (has_trait(op, NEEDS_OUT)) needs |= SET(OUT);
    return needs;
}

/* The arrays that a function writes, if they are given. */
static unsigned writes_of(int function)
{
    switch (function) {
    case OP_CROSS_ENTROPY: return SET(LOSS) | SET(OUT) | SET(HESS) | SET(TEMPERATURE_GRAD);
    case OP_ENTROPY:
    case OP_KL: return SET(LOSS) | SET(OUT);
    case OP_RANK: return SET(LOSS) | SET(RANKS) | SET(TOPS);
    case OP_FINISH: return SET(LOSS) | SET(OUT);
    case OP_LOGSUMEXP: return SET(LOSS);
    case OP_BEGIN:
    case OP_MERGE: return SET(PARTS);
    case OP_CHECK_TARGET:
    case CHECK_LABELS:
    case TOTAL_WEIGHT: return 0;
    default: return SET(OUT);
    }
}

/* How the arguments are spoiled. Every function refuses a spoil from BAD_SIZE on. */
enum { SOUND, NULL_POINTER, BAD_OPTION, BAD_OPTIONS_SIZE, BAD_LABEL_TYPE, BAD_HESSIAN, BAD_CLASS_RANGE, TWO_TARGETS };
enum { BAD_SPARSE = TWO_TARGETS + 1, BAD_TEMPERATURE };
enum { BAD_SIZE = BAD_TEMPERATURE + 1, BAD_SAMPLES, BAD_CLASSES, BAD_TYPE, N_SPOILS };

/* A call, without the arrays' contents. */
typedef struct {
    int function, is_f64, in_place, spoil;
    uint64_t spoil_bits;
    unsigned given; /* the arrays that are given */
    int type[N_ARRAYS];
    layout layouts[2][N_ARRAYS]; /* two layouts of each array, which must give the same results */
    int with_options;
    softxent_options options;
    softxent_block block; /* everything but the arrays */
} drawn;

static int is_given(const drawn *d, int array) { return (d->given & SET(array)) != 0; }

/* Whether the block holds a part of the classes. check_labels and total_weight read such a block too, if it has parts
 * and labels. */
static int is_part(const drawn *d)
{
    const int has_parts = is_given(d, PARTS) && is_given(d, LABELS);
    return d->function == OP_BEGIN || d->function == OP_FINISH || (d->function >= CHECK_LABELS && has_parts);
}

/* ---- Drawing one ------------------------------------------------------------------------------------------------ */

/* The numbers of classes lie around the widths of the vectors, around the borders between kernels, and where rows
 * become long. */
static ptrdiff_t draw_classes(reader *r)
{
    static const ptrdiff_t borders[] = {4, 8, 16, 32, 64, 128, 256, 2048, 4096};
    switch (below(16, r)) {
    case 1: return 4097 + below(1000, r);
    case 2: return borders[7 + below(2, r)] - 1 + below(3, r);
    case 3:
    case 4:
    case 5:
    case 6: return 1 + below(300, r);
    case 7:
    case 8:
    case 9: return borders[below(7, r)] - 1 + below(3, r);
    default: return 1 + below(24, r);
    }
}

/* The numbers of samples. If a sample is small, there may be more samples than the labels that the library reads at
 * once. */
static ptrdiff_t draw_samples(ptrdiff_t entries, reader *r)
{
    const ptrdiff_t n = one_in(12, r) ? 250 + below(280, r) : below(71, r), most = 6000 / entries;
    return n <= most ? n : most < 3 ? n % 3 + 1 : most;
}

KNOWS_FIELDS_UP_TO(log_base, softxent_options);
KNOWS_FIELDS_UP_TO(temperature_grad_stride,
                   softxent_block); /* draw_arrays, draw_block, block_of, writes_of, spoil_pointer */

static void draw_options(drawn *d, reader *r)
{
    static const double scales[] = {0, 1, 0.5, 3, 0.01, 30, 0x1p-100, 0x1p100};
    static const double smoothings[] = {0, 0.1, 1, 0x1p-60}, z_losses[] = {0, 1e-4, 1, DBL_MAX};
    static const double bases[] = {0, 1, 0.7, 2.3, -1, DBL_MAX, 0x1p-1074};
    softxent_options *o = &d->options;
    o->size = sizeof *o;
    if (one_in(2, r)) o->temperature = scales[below(8, r)];
    if (is_given(d, TEMPERATURES) && takes_temperatures(d->function)) o->temperature = one_in(2, r);
    if (one_in(3, r)) o->log_base = bases[below(7, r)];
    const int knows_slope = d->function != OP_HVP && !is_given(d, HESS);
    if (one_in(4, r) && knows_slope) o->softcap = scales[below(8, r)];
    if (one_in(4, r) && knows_slope) o->z_loss = z_losses[below(4, r)];
    if (one_in(3, r) && !is_part(d)) o->label_smoothing = smoothings[below(4, r)];
}

/* Draws the arrays: those that the function needs, and as a rule some of those that it may have or does not look at. */
static void draw_arrays(drawn *d, reader *r)
{
    const int may_have_more = !one_in(3, r);
    d->given = needs_of(d->function);
    const int has_gradient = d->function == OP_CROSS_ENTROPY || d->function == OP_ENTROPY || d->function == OP_KL;
    if (has_gradient && !one_in(4, r)) d->given |= SET(OUT);
    if (d->function == OP_FINISH) d->given |= SET(one_in(3, r) ? OUT : LOSS);
    if (d->function == OP_RANK) d->given |= SET(RANKS) | SET(TOPS);
    if (takes_masses(d->function) && one_in(3, r))
        d->given |= SET(CLASSES) | SET(MASSES);
    else if (d->function == OP_CHECK_TARGET)
        d->given |= SET(TARGET);
    else if (has_labels(d->function))
        d->given |= !is_given(d, LABELS) && one_in(3, r) ? SET(TARGET) : SET(LABELS);
    for (int i = 0; i < N_ARRAYS && may_have_more; ++i) {
        const int is_of_masses = i == CLASSES || i == MASSES, has_shard = is_given(d, PARTS) && is_given(d, LABELS);
        if (i == LABELS || i == TARGET || (is_of_masses && (takes_masses(d->function) || has_shard))) continue;
        if (one_in(4, r)) d->given |= SET(i);
    }
    if (d->function == OP_CROSS_ENTROPY && is_given(d, HESS)) d->given |= SET(OUT);
    if (d->function == OP_FINISH && is_given(d, OUT)) d->given |= SET(LOGITS);
    if (is_part(d)) d->given &= ~(SET(HESS) | SET(CLASS_WEIGHT) | SET(TEMPERATURES));
    if (is_part(d)) d->given &= ~(SET(CLASSES) | SET(MASSES));
    d->in_place = is_given(d, LOGITS) && is_given(d, OUT) && d->function != OP_JACOBIAN && one_in(6, r);
    for (int i = 0; i < N_ARRAYS; ++i) {
        const int has_type = i == LOGITS || i == TARGET || i == DIRECTION || i == LOSS || i == OUT;
        const int is_input = i < N_INPUTS && !(i == LOGITS && d->in_place);
        d->type[i] = has_type && !d->is_f64 && one_in(4, r) ? 1 + below(2, r) : SOFTXENT_REAL;
        for (int j = 0; j < 2; ++j) {
            layout *l = &d->layouts[j][i];
            *l = draw_layout(r);
            if (!is_input || j) l->fixed = -1;
            if (i == CLASS_WEIGHT || i == PARTS || i == OTHER_PARTS) *l = (layout){0, {0}, {0}, -1, l->slack};
        }
    }
    for (int j = 0; j < 2; ++j) { /* the masses of a sample lie side by side, and their classes with the same stride */
        const layout masses = d->layouts[j][MASSES];
        const int slack = d->layouts[j][CLASSES].slack;
        d->layouts[j][MASSES] = (layout){0, {masses.gap[0], 0, 0}, {masses.flip[0], 0, 0}, -1, masses.slack};
        if (masses.fixed == 0) d->layouts[j][MASSES].fixed = 0;
        d->layouts[j][CLASSES] = d->layouts[j][MASSES], d->layouts[j][CLASSES].slack = slack;
    }
    if (d->in_place) d->type[OUT] = d->type[LOGITS];
    d->type[HESS] = d->type[OUT];
}

static void draw_block(drawn *d, reader *r)
{
    static const double scales[] = {1, 0.37, 0, -2, DBL_MAX, INFINITY, NAN};
    static const ptrdiff_t n_masses[] = {1, 0, 2, 5, 16, 64, 65, 100};
    softxent_block *b = &d->block;
    const ptrdiff_t n_classes = draw_classes(r);
    b->size = sizeof *b;
    b->n_classes = d->function == OP_JACOBIAN && n_classes > 100 ? n_classes % 100 + 1 : n_classes;
    b->n_samples = draw_samples(d->function == OP_JACOBIAN ? b->n_classes * b->n_classes : b->n_classes, r);
    b->logits_type = d->type[LOGITS], b->target_type = d->type[TARGET], b->direction_type = d->type[DIRECTION];
    b->loss_type = d->type[LOSS], b->out_type = d->type[OUT], b->label_type = below(8, r);
    b->use_ignore_index = one_in(3, r) && !(is_given(d, MASSES) && takes_masses(d->function));
    b->n_masses = n_masses[below(8, r)], b->target_holds_logits = one_in(2, r);
    b->ignore_index = one_in(4, r) ? (int64_t)bits_from(r) : below(8, r) - 4;
    b->accumulate = one_in(4, r), b->hess_kind = below(3, r);
    b->grad_scale = one_in(3, r) ? scales[below(7, r)] : 1;
    b->first_class = one_in(2, r) ? below(300, r) : 0;
    b->all_classes = b->first_class + b->n_classes + (one_in(2, r) ? below(300, r) : 0);
}

/* NULL is drawn rarely, because asking the processor takes long. */
static const softxent_isa *draw_isa(reader *r)
{
    enum { MOST = 8 };
    static const softxent_isa *usable[MOST];
    static int n;
    for (; n < MOST && softxent_isa_usable(n); ++n)
        if (softxent_isa_select(softxent_isa_usable(n), &usable[n]) != SOFTXENT_OK) abort();
    if (n == 0) abort();
    return one_in(100, r) ? NULL : usable[below(n, r)];
}

static drawn draw(reader *r)
{
    drawn d;
    memset(&d, 0, sizeof d);
    d.function = below(N_FUNCTIONS + 3, r); /* the loss is drawn more often than the other functions */
    if (d.function >= N_FUNCTIONS) d.function = OP_CROSS_ENTROPY;
    d.is_f64 = one_in(2, r);
    d.block.isa = draw_isa(r);
    draw_arrays(&d, r);
    draw_block(&d, r);
    d.with_options = is_given(&d, CLASS_WEIGHT) || one_in(2, r);
    if (d.with_options) draw_options(&d, r);
    d.spoil = one_in(8, r) ? below(N_SPOILS, r) : SOUND;
    if (d.spoil) d.spoil_bits = bits_from(r);
    return d;
}

/* ---- Arrays of a call ------------------------------------------------------------------------------------------- */

/* If a call is in place, `out` is another name of the logits. */
typedef struct {
    array of[N_ARRAYS];
} world;

static array array_of(const drawn *d, int which)
{
    static const int label_sizes[] = {1, 2, 4, 8, 1, 2, 4, 8};
    const ptrdiff_t n = d->block.n_samples, n_classes = d->block.n_classes;
    array x = {NULL, 0, 0, {n, 1, n_classes}, {0, 0, 0}, d->is_f64 ? f64 : f32};
    if (d->type[which]) x.f = d->type[which] == SOFTXENT_FLOAT16 ? f16 : bf16;
    switch (which) {
    case LABELS: x.count[2] = 1, x.f = (format){label_sizes[d->block.label_type], 0, 0}; break;
    case CLASSES: x.count[2] = d->block.n_masses, x.f = (format){label_sizes[d->block.label_type], 0, 0}; break;
    case MASSES: x.count[2] = d->block.n_masses; break;
    case TEMPERATURES:
    case TEMPERATURE_GRAD: x.count[2] = 1, x.f = f64; break;
    case WHERE: x.f = (format){1, 0, 0}; break;
    case CLASS_WEIGHT: x.count[0] = 1; break;
    case SAMPLE_WEIGHT:
    case GRAD_OUTPUT:
    case LOSS: x.count[2] = 1; break;
    case RANKS:
    case TOPS: x.count[2] = 1, x.f = (format){8, 0, 0}; break;
    case PARTS:
    case OTHER_PARTS: x.count[2] = 4; break;
    case OUT: x.count[1] = d->function == OP_JACOBIAN ? n_classes : 1; break;
    default: break;
    }
    return x;
}

/* A sample of more than TILE classes may have other bits if its classes do not lie side by side. */
static int may_differ(const array *a, const array *b)
{
    return a->count[2] > TILE && (a->stride[2] == 1) != (b->stride[2] == 1);
}

/* Makes empty arrays, in the first layouts or in the second ones. */
static world world_of(const drawn *d, int other)
{
    world w;
    memset(&w, 0, sizeof w);
    for (int i = 0; i < N_ARRAYS; ++i) {
        if (!is_given(d, i) || (i == OUT && d->in_place)) continue;
        w.of[i] = array_of(d, i);
        lay_out(&w.of[i], d->layouts[other][i]);
        if (i != LOGITS || !other) continue;
        array first = array_of(d, i);
        lay_out(&first, d->layouts[0][i]);
        free(first.memory);
        if (!may_differ(&w.of[i], &first)) continue;
        free(w.of[i].memory);
        lay_out(&w.of[i], d->layouts[0][i]);
    }
    if (d->in_place) w.of[OUT] = w.of[LOGITS];
    return w;
}

static void free_world(const drawn *d, world *w)
{
    for (int i = 0; i < N_ARRAYS; ++i)
        if (i != OUT || !d->in_place) free(w->of[i].memory);
}

/* Copies the contents, in the same layout or in the other one. */
static world copy_of(const drawn *d, const world *w, int other)
{
    world copy = world_of(d, other);
    for (int which = 0; which < N_ARRAYS; ++which) {
        const array *from = &w->of[which], *to = &copy.of[which];
        if (!other && to->memory) memcpy(to->memory, from->memory, from->bytes);
        for (ptrdiff_t i = 0; other && i < to->count[0]; ++i) EACH_ENTRY(to)
        memcpy(entry_of(to, i, row, k), entry_of(from, i, row, k), (size_t)to->f.size);
    }
    return copy;
}

/* ---- Contents --------------------------------------------------------------------------------------------------- */

enum { ORDINARY, WHOLE, WITH_SPECIAL, MOSTLY_SPECIAL, RAW, BYTES, N_CONTENTS };

typedef struct {
    int contents, is_positive;
    uint64_t random;
    reader bytes, all; /* repeats what is left of the input */
} filler;

/* 0, infinity, nan, and the smallest and largest numbers of each kind. */
static uint64_t special_number(format f, uint64_t random)
{
    const uint64_t infinity = (uint64_t)(2 * f.bias + 1) << f.fraction, normal = (uint64_t)1 << f.fraction;
    const uint64_t numbers[] = {0, infinity, infinity + 1 + normal / 2, 1, normal - 1, normal, infinity - 1, 0};
    return numbers[random % 8];
}

static uint64_t draw_number(filler *fill, format f)
{
    const uint64_t random = random_bits(&fill->random), other = random_bits(&fill->random);
    const uint64_t sign = fill->is_positive ? 0 : random >> 63 << (8 * f.size - 1);
    const int is_special =
        (fill->contents == WITH_SPECIAL && other % 32 == 0) || (fill->contents == MOSTLY_SPECIAL && other % 3 != 0);
    if (fill->contents == RAW) return random;
    if (fill->contents == BYTES && fill->all.next < fill->all.end) {
        if (fill->bytes.next >= fill->bytes.end) fill->bytes = fill->all;
        return bits_from(&fill->bytes);
    }
    if (is_special) return sign | special_number(f, random);
    if (fill->contents == WHOLE) /* 0, 1, 2 or 4, of either sign, so that there are many ties */
        return random % 4 ? sign | (uint64_t)(f.bias - 1 + (int)(random % 4)) << f.fraction : 0;
    const int exponent = f.bias - 6 + (int)(random % 12);
    return sign | (uint64_t)exponent << f.fraction | (other & (((uint64_t)1 << f.fraction) - 1));
}

/* Draws a label: a class as a rule, else ignore_index or any number. */
static uint64_t draw_label(const drawn *d, filler *fill)
{
    const uint64_t random = random_bits(&fill->random), other = random_bits(&fill->random);
    const softxent_block *b = &d->block;
    const ptrdiff_t n_classes = is_part(d) ? b->all_classes : b->n_classes;
    const int oddity = (int)(random % 64);
    if (fill->contents == RAW) return random;
    if (b->use_ignore_index && random >> 32 & 1) return (uint64_t)b->ignore_index;
    if (oddity == 0 && fill->contents >= WITH_SPECIAL) return (uint64_t)n_classes + other % 2;
    if (oddity == 1 && fill->contents >= WITH_SPECIAL) return 0 - other % 2 - 1;
    if (oddity == 2 && fill->contents >= WITH_SPECIAL) return (uint64_t)1 << other % 64;
    return other % (uint64_t)n_classes;
}

/* A class of a sparse target: padding now and then. */
static uint64_t draw_class(const drawn *d, filler *fill)
{
    const uint64_t random = random_bits(&fill->random), label = draw_label(d, fill);
    return random % 8 == 0 && d->block.label_type < SOFTXENT_UINT8 ? UINT64_MAX : label;
}

/* A temperature in its range, and often 1. */
static uint64_t draw_temperature(filler *fill)
{
    const uint64_t random = random_bits(&fill->random), other = random_bits(&fill->random);
    const int exponent =
        f64.bias - (fill->contents == RAW ? 100 : 3) + (int)(random % (fill->contents == RAW ? 200 : 6));
    return other % 4 == 0 ? (uint64_t)f64.bias << 52 : (uint64_t)exponent << 52 | other >> 12;
}

static void fill_world(const drawn *d, const world *w, reader *r)
{
    for (int which = 0; which < N_ARRAYS; ++which) {
        const array *x = &w->of[which];
        filler fill = {below(N_CONTENTS + 2, r),
                       which == TARGET || which == SAMPLE_WEIGHT || which == CLASS_WEIGHT || which == MASSES,
                       bits_from(r), *r, *r};
        if (fill.contents >= N_CONTENTS) fill.contents = ORDINARY;
        for (ptrdiff_t i = 0; i < x->count[0]; ++i) EACH_ENTRY(x)
            {
                const uint64_t bits = which == LABELS         ? draw_label(d, &fill)
                                      : which == CLASSES      ? draw_class(d, &fill)
                                      : which == TEMPERATURES ? draw_temperature(&fill)
                                      : which == WHERE        ? random_bits(&fill.random) % 5
                                                              : draw_number(&fill, x->f);
                put_bits(entry_of(x, i, row, k), x->f, bits);
            }
    }
}

/* ---- The block, and what is wrong with it ----------------------------------------------------------------------- */

KNOWS_FIELDS_UP_TO(log_base, softxent_options);

static void spoil_options(softxent_options *o, uint64_t bits)
{
    static const double values[] = {NAN, INFINITY, -INFINITY, -1, -0x1p-1074, 0x1p-101, 0x1p101, 2, 1 + DBL_EPSILON};
    double *const options[] = {&o->label_smoothing, &o->temperature, &o->softcap, &o->z_loss, &o->log_base};
    *options[bits % 5] = values[bits / 5 % 9];
}

static void spoil_class_range(softxent_block *b, uint64_t bits)
{
    static const ptrdiff_t values[] = {-1, 0, 1, PTRDIFF_MAX, PTRDIFF_MIN};
    *(bits & 1 ? &b->first_class : &b->all_classes) = values[bits / 2 % 5];
}

static void spoil_pointer(softxent_block *b, uint64_t bits)
{
    const void **const inputs[] = {&b->logits,        &b->labels,      &b->target,     &b->direction,
                                   &b->sample_weight, &b->grad_output, &b->other_parts};
    void **const outputs[] = {&b->parts, &b->loss, &b->out, &b->hess};
    const int which = (int)(bits % 18);
    if (which < 7) *inputs[which] = NULL;
    if (which == 14) b->classes = NULL;
    if (which == 15) b->masses = NULL;
    if (which == 16) b->temperatures = NULL;
    if (which == 17) b->temperature_grad = NULL;
    if (which == 7) b->where = NULL;
    if (which > 7 && which < 12) *outputs[which - 8] = NULL;
    if (which == 12) b->rank = NULL;
    if (which == 13) b->top = NULL;
}

static void spoil_sparse(softxent_block *b, uint64_t bits)
{
    static const int16_t class = 0;
    switch (bits % 4) {
    case 0: b->n_masses = bits & 4 ? -1 : PTRDIFF_MIN; break;
    case 1: b->use_ignore_index = 1; break;
    case 2: b->classes = &class, b->masses = NULL; break;
    default: b->labels = b->classes; break;
    }
}

static void spoil_temperatures(softxent_block *b, uint64_t bits)
{
    static const double values[] = {NAN, INFINITY, -INFINITY, -1, 0, 0x1p-101, 0x1p101, DBL_MAX};
    b->temperatures = &values[bits % 8], b->temperatures_stride = 0;
}

/* A size that no version of a struct has: zero, no whole number of words, or more than a page. */
static size_t bad_size(uint64_t bits)
{
    switch (bits % 3) {
    case 0: return 0;
    case 1: return (size_t)(bits / 4 % 512 * sizeof(size_t) + 1 + bits / 2048 % (sizeof(size_t) - 1));
    default: return (size_t)bits / sizeof(size_t) * sizeof(size_t) | 0x2000;
    }
}

static void spoil(const drawn *d, softxent_block *b, softxent_options *o)
{
    static const int bad_types[] = {-1, INT_MAX, INT_MIN, 3, 8};
    const uint64_t bits = d->spoil_bits;
    const int bad_type = bad_types[bits / 8 % 5];
    int *const types[] = {&b->logits_type, &b->target_type, &b->direction_type, &b->loss_type, &b->out_type};
    switch (d->spoil) {
    case NULL_POINTER: spoil_pointer(b, bits); break;
    case BAD_OPTION: spoil_options(o, bits), b->options = o; break;
    case BAD_OPTIONS_SIZE: o->size = bad_size(bits), b->options = o; break;
    case BAD_LABEL_TYPE: b->label_type = bad_type == 3 ? 9 : bad_type; break;
    case BAD_HESSIAN: b->hess_kind = bad_type; break;
    case BAD_CLASS_RANGE: spoil_class_range(b, bits); break;
    case TWO_TARGETS: b->target = b->labels = b->target ? b->target : b->labels; break;
    case BAD_SPARSE: spoil_sparse(b, bits); break;
    case BAD_TEMPERATURE: spoil_temperatures(b, bits); break;
    case BAD_SIZE: b->size = bad_size(bits); break;
    case BAD_SAMPLES: b->n_samples = bits & 1 ? PTRDIFF_MIN : -1 - (ptrdiff_t)(bits / 2 % 100); break;
    case BAD_CLASSES: b->n_classes = bits & 1 ? PTRDIFF_MIN : -(ptrdiff_t)(bits / 2 % 100); break;
    case BAD_TYPE: *types[bits % 5] = bad_type; break;
    default: break;
    }
}

/* The block of the samples from `begin` on. */
static softxent_block block_of(const drawn *d, const world *w, ptrdiff_t begin, ptrdiff_t n, softxent_options *o)
{
    softxent_block b = d->block;
    void *data[N_ARRAYS];
    for (int i = 0; i < N_ARRAYS; ++i) data[i] = w->of[i].memory ? entry_of(&w->of[i], begin, 0, 0) : NULL;
    data[CLASS_WEIGHT] = w->of[CLASS_WEIGHT].memory ? entry_of(&w->of[CLASS_WEIGHT], 0, 0, 0) : NULL;
    const array *x = w->of;
    b.n_samples = n;
    b.logits = data[LOGITS], b.labels = data[LABELS], b.target = data[TARGET], b.where = data[WHERE];
    b.direction = data[DIRECTION], b.sample_weight = data[SAMPLE_WEIGHT], b.grad_output = data[GRAD_OUTPUT];
    b.classes = data[CLASSES], b.masses = data[MASSES];
    b.masses_stride = x[is_given(d, MASSES) ? MASSES : CLASSES].stride[0];
    b.temperatures = (const double *)data[TEMPERATURES], b.temperatures_stride = x[TEMPERATURES].stride[0];
    b.temperature_grad = (double *)data[TEMPERATURE_GRAD], b.temperature_grad_stride = x[TEMPERATURE_GRAD].stride[0];
    b.parts = data[PARTS], b.other_parts = data[OTHER_PARTS];
    b.loss = data[LOSS], b.out = data[OUT], b.hess = data[HESS];
    b.rank = (int64_t *)data[RANKS], b.top = (int64_t *)data[TOPS];
    b.rank_stride = x[RANKS].stride[0], b.top_stride = x[TOPS].stride[0];
    b.logits_sample_stride = x[LOGITS].stride[0], b.logits_class_stride = x[LOGITS].stride[2];
    b.target_sample_stride = x[TARGET].stride[0], b.target_class_stride = x[TARGET].stride[2];
    b.where_sample_stride = x[WHERE].stride[0], b.where_class_stride = x[WHERE].stride[2];
    b.direction_sample_stride = x[DIRECTION].stride[0], b.direction_class_stride = x[DIRECTION].stride[2];
    b.out_sample_stride = x[OUT].stride[0], b.out_row_stride = x[OUT].stride[1];
    b.out_class_stride = x[OUT].stride[2];
    b.hess_sample_stride = x[HESS].stride[0], b.hess_class_stride = x[HESS].stride[2];
    b.labels_stride = x[LABELS].stride[0], b.loss_stride = x[LOSS].stride[0];
    b.sample_weight_stride = x[SAMPLE_WEIGHT].stride[0], b.grad_output_stride = x[GRAD_OUTPUT].stride[0];
    *o = d->options, o->class_weight = data[CLASS_WEIGHT];
    if (d->with_options) b.options = o;
    if (d->spoil == BAD_OPTION || d->spoil == BAD_OPTIONS_SIZE) o->size = sizeof *o;
    spoil(d, &b, o);
    return b;
}

/* ---- What must be so -------------------------------------------------------------------------------------------- */

/* The call at hand, which the message of a failure describes. */
static const drawn *at_hand;

static void describe(const drawn *d, const char *isa)
{
    const softxent_block *b = &d->block;
    fprintf(stderr, "%s_%s, %s, %ld samples, %ld classes, arrays %06x, in place %d, spoiled %d\n", name_of(d->function),
            d->is_f64 ? "f64" : "f32", isa ? isa : "any", (long)b->n_samples, (long)b->n_classes, d->given, d->in_place,
            d->spoil);
}

static int broken(const char *expression, int line)
{
    fprintf(stderr, "fuzz.c:%d: not so: %s\n", line, expression);
    if (at_hand) describe(at_hand, softxent_isa_name(at_hand->block.isa));
    abort();
}

#define REQUIRE(condition) ((void)((condition) || broken(#condition, __LINE__)))

enum { UNSAID = -5 };

typedef struct {
    int status;
    ptrdiff_t bad, counted;
    double total;
} answer;

static answer call(const drawn *d, const softxent_block *b)
{
    answer a = {0, UNSAID, UNSAID, UNSAID};
    switch (d->function) {
    case CHECK_LABELS: a.status = softxent_check_labels(b, &a.counted, &a.bad); break;
    case TOTAL_WEIGHT:
        a.status = (d->is_f64 ? softxent_total_weight_f64 : softxent_total_weight_f32)(b, &a.total, &a.bad);
        break;
    default: a.status = call_function((softxent_op)d->function, d->is_f64, b, &a.bad);
    }
    return a;
}

typedef enum { CLASS, IGNORED, NO_CLASS } verdict;

/* A label or a class with its sign extended. A uint64 that is too large for int64 becomes negative. */
static int64_t integer_at(const drawn *d, const array *x, ptrdiff_t i, ptrdiff_t j)
{
    static const uint64_t sign_bits[] = {0x80, 0x8000, 0x80000000, 0, 0, 0, 0, 0};
    const uint64_t sign = sign_bits[d->block.label_type];
    return (int64_t)((bits_at(entry_of(x, i, 0, j), x->f) ^ sign) - sign);
}

static int64_t label_of(const drawn *d, const world *w, ptrdiff_t i) { return integer_at(d, &w->of[LABELS], i, 0); }

static verdict judge_label(const drawn *d, const world *w, const softxent_block *b, ptrdiff_t i)
{
    const int64_t value = label_of(d, w, i);
    const int is_huge = d->block.label_type == SOFTXENT_UINT64 && value < 0;
    if (b->use_ignore_index && value == b->ignore_index && !is_huge) return IGNORED;
    return value >= 0 && value < (is_part(d) && b->parts ? b->all_classes : b->n_classes) ? CLASS : NO_CLASS;
}

static int reads_labels(const drawn *d, const softxent_block *b)
{
    const int may = d->function >= CHECK_LABELS || has_trait((softxent_op)d->function, NEEDS_LABELS | NEEDS_SHARD);
    return may && b->labels && d->block.n_samples > 0;
}

static int reads_masses(const drawn *d, const softxent_block *b)
{
    return d->function < CHECK_LABELS && takes_masses(d->function) && b->masses;
}

static int reads_target(const drawn *d, const softxent_block *b)
{
    if (d->function >= CHECK_LABELS || !b->target || reads_masses(d, b)) return 0;
    const softxent_op op = (softxent_op)d->function;
    if (has_trait(op, NEEDS_DENSE_TARGET)) return !b->target_holds_logits;
    return has_trait(op, NEEDS_TARGET) || (has_trait(op, NEEDS_LABELS) && !b->labels);
}

/* Whether a sample has weight 0, so that nothing of it counts but its label. */
static int is_weightless(const drawn *d, const world *w, const softxent_block *b, ptrdiff_t i)
{
    const array *x = &w->of[SAMPLE_WEIGHT];
    return takes_weights(d->function) && b->sample_weight && number_at(entry_of(x, i, 0, 0), x->f) == 0;
}

/* The status of sample i. A divergence does not look at the classes that `where` removes. */
static int judge_target(const drawn *d, const world *w, const softxent_block *b, ptrdiff_t i)
{
    const array *x = &w->of[TARGET], *where = &w->of[WHERE];
    int is_good = 1;
    for (ptrdiff_t k = 0; k < x->count[2]; ++k) {
        if (d->function == OP_KL && b->where && !*entry_of(where, i, 0, k)) continue;
        is_good &= number_at(entry_of(x, i, 0, k), x->f) >= 0;
    }
    return is_good || is_weightless(d, w, b, i) ? SOFTXENT_OK : SOFTXENT_BAD_TARGET;
}

/* The class of entry j of a sample's sparse target, with its sign extended, or -2 if it is none. */
static int64_t class_of_mass(const drawn *d, const world *w, ptrdiff_t i, ptrdiff_t j)
{
    const int64_t value = integer_at(d, &w->of[CLASSES], i, j);
    const int is_pad = value == -1 && d->block.label_type != SOFTXENT_UINT64;
    return (value >= 0 && value < d->block.n_classes) || is_pad ? value : -2;
}

static int judge_masses(const drawn *d, const world *w, const softxent_block *b, ptrdiff_t i)
{
    const array *x = &w->of[MASSES];
    int is_good = 1;
    for (ptrdiff_t j = 0; j < x->count[2]; ++j) {
        const int64_t class = class_of_mass(d, w, i, j);
        if (class == -2) return SOFTXENT_BAD_LABEL;
        is_good &= class == -1 || number_at(entry_of(x, i, 0, j), x->f) >= 0; /* the mass of a pad is not looked at */
    }
    return is_good || is_weightless(d, w, b, i) ? SOFTXENT_OK : SOFTXENT_BAD_TARGET;
}

/* The status that sample i alone has. */
static int judge(const drawn *d, const world *w, const softxent_block *b, ptrdiff_t i)
{
    if (reads_masses(d, b)) return judge_masses(d, w, b, i);
    if (reads_target(d, b)) return judge_target(d, w, b, i);
    return reads_labels(d, b) && judge_label(d, w, b, i) == NO_CLASS ? SOFTXENT_BAD_LABEL : SOFTXENT_OK;
}

static int is_stopped(int status) { return status == SOFTXENT_BAD_LABEL || status == SOFTXENT_BAD_TARGET; }

/* Checks that the function that only reads targets has the same verdict as the function that uses them. */
static void check_target(const drawn *d, const softxent_block *b, int status, ptrdiff_t good)
{
    ptrdiff_t bad = UNSAID;
    REQUIRE((d->is_f64 ? softxent_check_target_f64 : softxent_check_target_f32)(b, &bad) == status);
    REQUIRE(bad == (good < b->n_samples ? good : UNSAID));
}

static void check_status(const drawn *d, const world *w, const softxent_block *b, answer a)
{
    const int has_types = d->function < CHECK_LABELS;
    ptrdiff_t good = 0, counted = 0;
    int status = SOFTXENT_OK;
    if (d->spoil == SOUND) REQUIRE(a.status == SOFTXENT_OK || is_stopped(a.status));
    if (d->spoil >= BAD_SIZE && (d->spoil != BAD_TYPE || has_types)) REQUIRE(a.status == SOFTXENT_BAD_ARGUMENT);
    if (d->spoil == BAD_TEMPERATURE && takes_temperatures(d->function) && b->n_samples > 0)
        REQUIRE(a.status == SOFTXENT_BAD_ARGUMENT);
    REQUIRE(is_stopped(a.status) || a.bad == UNSAID);
    REQUIRE(a.status == SOFTXENT_OK || (a.counted == UNSAID && a.total == UNSAID));
    if (a.status == SOFTXENT_BAD_ARGUMENT) return;
    while (good < b->n_samples && (status = judge(d, w, b, good)) == SOFTXENT_OK) ++good;
    REQUIRE(a.status == status && a.bad == (status == SOFTXENT_OK ? UNSAID : good));
    if ((reads_masses(d, b) || reads_target(d, b)) && d->function != OP_KL) check_target(d, b, status, good);
    for (ptrdiff_t i = 0; i < good && reads_labels(d, b); ++i) counted += judge_label(d, w, b, i) == CLASS;
    if (a.status == SOFTXENT_OK && d->function == CHECK_LABELS) REQUIRE(a.counted == counted);
}

/* Whether the function writes an array. In place, `out` is in the array of the logits. */
static int is_written(const drawn *d, int which)
{
    if (d->in_place && which == LOGITS) which = OUT;
    return (writes_of(d->function) & d->given & SET(which)) != 0;
}

/* Checks that nothing but the entries of the first `done` samples has changed. */
static void check_touched(const drawn *d, const world *before, const world *after, ptrdiff_t done)
{
    for (int which = 0; which < N_ARRAYS; ++which) {
        const array *from = &before->of[which], *to = &after->of[which];
        if (!to->memory || (which == OUT && d->in_place)) continue;
        unsigned char *expected = (unsigned char *)malloc(to->bytes + 1);
        if (!expected) abort();
        memcpy(expected, from->memory, from->bytes);
        for (ptrdiff_t i = 0; i < done && is_written(d, which); ++i) EACH_ENTRY(to)
            {
                const unsigned char *entry = entry_of(to, i, row, k);
                memcpy(expected + (entry - to->memory), entry, (size_t)to->f.size);
            }
        REQUIRE(memcmp(expected, to->memory, to->bytes) == 0);
        free(expected);
    }
}

/* Checks that every output has the same bits in both worlds, or is nan in both. */
static void check_same(const drawn *d, const world *a, const world *b, ptrdiff_t done)
{
    for (int which = PARTS; which < N_ARRAYS; ++which) {
        const array *x = &a->of[which], *y = &b->of[which];
        for (ptrdiff_t i = 0; i < done && is_written(d, which); ++i) EACH_ENTRY(x)
        REQUIRE(is_same(entry_of(x, i, row, k), entry_of(y, i, row, k), x->f));
    }
}

static void check_ignored(const drawn *d, const world *before, const world *after, const softxent_block *b, ptrdiff_t i)
{
    const int is_op = d->function < CHECK_LABELS;
    const int adds = b->accumulate && is_op && has_trait((softxent_op)d->function, HEEDS_OUT);
    for (int which = LOSS; which < N_ARRAYS; ++which) {
        const array *x = &after->of[which];
        if (!is_written(d, which) || !x->memory) continue;
        EACH_ENTRY(x)
        {
            const unsigned char *entry = entry_of(x, i, row, k);
            if (which == OUT && adds)
                REQUIRE(is_same_number(entry, entry_of(&before->of[which], i, row, k), x->f));
            else
                REQUIRE(bits_at(entry, x->f) == (which == RANKS || which == TOPS ? UINT64_MAX : 0));
        }
    }
}

static void check_softmax(const drawn *d, const world *w, ptrdiff_t i)
{
    const array *x = &w->of[OUT];
    EACH_ENTRY(x)
    {
        const double p = number_at(entry_of(x, i, row, k), x->f);
        if (d->function == OP_SOFTMAX) REQUIRE(isnan(p) || (p >= 0 && p <= 1));
        if (d->function == OP_LOG_SOFTMAX) REQUIRE(isnan(p) || p <= 0);
    }
}

/* Checks that an entropy or a divergence is not below 0. */
static void check_not_negative(const drawn *d, const world *w, ptrdiff_t i)
{
    const array *x = &w->of[LOSS];
    if (is_given(d, SAMPLE_WEIGHT)) return;
    const double value = number_at(entry_of(x, i, 0, 0), x->f);
    REQUIRE(isnan(value) || value >= 0);
}

/* The first class that has the largest entry, of the classes that `where` allows. -1 if all are nan. */
static int64_t first_largest(const array *x, const array *where, ptrdiff_t i)
{
    int64_t first = -1;
    for (ptrdiff_t k = 0; k < x->count[2]; ++k) {
        const double value = number_at(entry_of(x, i, 0, k), x->f);
        const int is_allowed = !where->memory || *entry_of(where, i, 0, k);
        if (is_allowed && value == value && (first < 0 || value > number_at(entry_of(x, i, 0, first), x->f))) first = k;
    }
    return first;
}

/* The first class that has the largest mass. Masses of one class are added in the type of the arithmetic. */
static int64_t first_largest_mass(const drawn *d, const world *w, ptrdiff_t i)
{
    enum { MOST_CLASSES = 6000 };
    static double sums[MOST_CLASSES];
    const array *x = &w->of[MASSES];
    int64_t first = 0;
    REQUIRE(d->block.n_classes <= MOST_CLASSES);
    for (ptrdiff_t k = 0; k < d->block.n_classes; ++k) sums[k] = 0;
    for (ptrdiff_t j = 0; j < x->count[2]; ++j) {
        const int64_t k = class_of_mass(d, w, i, j);
        if (k < 0) continue;
        sums[k] += number_at(entry_of(x, i, 0, j), x->f);
        if (!d->is_f64) sums[k] = (double)(float)sums[k];
    }
    for (ptrdiff_t k = 1; k < d->block.n_classes; ++k)
        if (sums[k] > sums[first]) first = k;
    return first;
}

/* Checks the rank and the top of a sample that is not ignored, by counting. */
static void check_rank(const drawn *d, const world *before, const world *after, ptrdiff_t i)
{
    static const array everywhere;
    const array *z = &before->of[LOGITS], *where = &before->of[WHERE], *ranks = &after->of[RANKS];
    const int64_t y = is_given(d, MASSES)   ? first_largest_mass(d, before, i)
                      : is_given(d, TARGET) ? first_largest(&before->of[TARGET], &everywhere, i)
                                            : label_of(d, before, i);
    const int is_removed = y >= 0 && where->memory && !*entry_of(where, i, 0, y);
    int64_t top = first_largest(z, where, i), rank = 0;
    int has_nan = 0;
    for (ptrdiff_t k = 0; k < z->count[2]; ++k) {
        const double x = number_at(entry_of(z, i, 0, k), z->f);
        if (where->memory && !*entry_of(where, i, 0, k)) continue;
        const double label_logit = y < 0 || is_removed ? 0 : number_at(entry_of(z, i, 0, y), z->f);
        has_nan |= isnan(x);
        rank += is_removed || x > label_logit || (x == label_logit && k < y);
    }
    if (has_nan) top = -1;
    if (top < 0 || y < 0) rank = -1;
    REQUIRE((int64_t)bits_at(entry_of(ranks, i, 0, 0), ranks->f) == rank);
    REQUIRE((int64_t)bits_at(entry_of(&after->of[TOPS], i, 0, 0), ranks->f) == top);
}

/* Calls the function for each sample alone, up to the one whose label or target is bad, and compares the results. */
static void check_alone(const drawn *d, const world *before, const world *whole, int status, ptrdiff_t done,
                        ptrdiff_t touched)
{
    softxent_options o;
    world alone = copy_of(d, before, 0);
    for (ptrdiff_t i = 0; i < d->block.n_samples && i <= done; ++i) {
        const softxent_block b = block_of(d, &alone, i, 1, &o);
        const answer a = call(d, &b);
        REQUIRE(i == done ? a.status == status && a.bad == 0 : a.status == SOFTXENT_OK);
    }
    check_touched(d, before, &alone, touched);
    check_same(d, whole, &alone, done);
    free_world(d, &alone);
}

/* Calls the function with the same contents in the other layouts, and compares the results. */
static void check_elsewhere(const drawn *d, const world *before, const world *whole, answer a, ptrdiff_t done)
{
    softxent_options o;
    world elsewhere = copy_of(d, before, 1);
    const softxent_block b = block_of(d, &elsewhere, 0, d->block.n_samples, &o);
    const answer other = call(d, &b);
    REQUIRE(other.status == a.status && other.bad == a.bad && other.counted == a.counted);
    REQUIRE(is_same((const unsigned char *)&other.total, (const unsigned char *)&a.total, f64));
    check_same(d, whole, &elsewhere, done);
    free_world(d, &elsewhere);
}

static void check(const drawn *d, const world *before)
{
    softxent_options o;
    world whole = copy_of(d, before, 0);
    const softxent_block b = block_of(d, &whole, 0, d->block.n_samples, &o);
    const answer a = call(d, &b);
    const ptrdiff_t n = d->block.n_samples;
    const ptrdiff_t done = a.status == SOFTXENT_OK ? n : is_stopped(a.status) ? a.bad : 0;
    const ptrdiff_t touched = a.status == SOFTXENT_BAD_TARGET ? n : done; /* a bad target is noticed late */
    check_status(d, before, &b, a);
    check_touched(d, before, &whole, touched);
    if (a.status != SOFTXENT_BAD_ARGUMENT) {
        if (writes_of(d->function)) check_alone(d, before, &whole, a.status, done, touched);
        check_elsewhere(d, before, &whole, a, done);
        for (ptrdiff_t i = 0; i < done && d->spoil != NULL_POINTER; ++i) { /* with one, outputs may be NULL */
            const int is_ignored = (reads_labels(d, &b) && judge_label(d, before, &b, i) == IGNORED) ||
                                   (d->function != OP_BEGIN && is_weightless(d, before, &b, i));
            if (is_ignored) check_ignored(d, before, &whole, &b, i);
            if (d->function == OP_RANK && !is_ignored) check_rank(d, before, &whole, i);
            if (d->function == OP_ENTROPY || d->function == OP_KL) check_not_negative(d, &whole, i);
            if (d->function == OP_SOFTMAX || d->function == OP_LOG_SOFTMAX) check_softmax(d, &whole, i);
        }
    }
    free_world(d, &whole);
}

/* Checks that a name is one of the usable instruction sets, or selects nothing. */
static void check_names(reader *r)
{
    static const int numbers[] = {-1, INT_MAX, 100, INT_MIN};
#define NAME_OF_ISA(isa) #isa,
    static const char *const names[] = {SOFTXENT_ISAS(NAME_OF_ISA) "", "AVX2", "avx5", "avx5122"};
#undef NAME_OF_ISA
    const char *name = names[below(sizeof names / sizeof names[0], r)];
    const softxent_isa *isa = NULL;
    const int status = softxent_isa_select(name, &isa);
    int is_usable = !*name;
    for (int i = 0; softxent_isa_usable(i); ++i) is_usable |= strcmp(softxent_isa_usable(i), name) == 0;
    REQUIRE(status == (is_usable ? SOFTXENT_OK : SOFTXENT_BAD_ISA) && !isa == !is_usable);
    REQUIRE(!*name || !isa || strcmp(softxent_isa_name(isa), name) == 0);
    REQUIRE(!softxent_isa_usable(numbers[below(4, r)]) && softxent_strerror((int)bits_from(r)));
    REQUIRE(softxent_isa_select(name, NULL) == SOFTXENT_BAD_ARGUMENT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    reader r = {data, data + size};
    const drawn d = draw(&r);
    at_hand = &d;
    world before = world_of(&d, 0);
    if (one_in(64, &r)) check_names(&r);
    fill_world(&d, &before, &r);
    check(&d, &before);
    free_world(&d, &before);
    at_hand = NULL;
    return 0;
}

/* ---- By itself -------------------------------------------------------------------------------------------------- */

#ifdef STANDALONE

enum { MOST_BYTES = 1024 };

static int replay(const char *path)
{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) return perror(path), 2;
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    return LLVMFuzzerTestOneInput(bytes, size);
}

/* fuzz file                    tries the input in the file
 * fuzz file seconds [seed]     tries pseudo-random ones, each of which is in the file while it is tried */
int main(int argc, char **argv)
{
    if (argc < 2) return fputs("fuzz file [seconds [seed]]\n", stderr), 2;
    if (argc == 2) return replay(argv[1]);
    const double seconds = strtod(argv[2], NULL);
    uint64_t random = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    const time_t start = time(NULL);
    long tried = 0;
    for (; difftime(time(NULL), start) < seconds; ++tried) {
        uint8_t bytes[MOST_BYTES];
        const size_t size = (size_t)(random_bits(&random) % MOST_BYTES);
        for (size_t i = 0; i < size; ++i) bytes[i] = (uint8_t)random_bits(&random);
        FILE *file = fopen(argv[1], "wb");
        if (!file || fwrite(bytes, 1, size, file) != size || fclose(file)) return perror(argv[1]), 2;
        LLVMFuzzerTestOneInput(bytes, size);
    }
    printf("%ld inputs, nothing found\n", tried);
    return 0;
}

#endif
