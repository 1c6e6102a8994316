/* softxent.c - the public entry points: check, pick, call. The arithmetic is in the templates. */
#include "softxent.h"

#include "dispatch.h"
#include "labels.h"

static int is_sound(const softxent_block *b)
{
    return b && b->size == sizeof *b && b->n_samples >= 0 && b->n_classes >= 1 && (b->logits || !b->n_samples);
}

static int has_labels(const softxent_block *b)
{
    return b->labels && b->label_type >= SOFTXENT_INT8 && b->label_type <= SOFTXENT_UINT64;
}

static int has_what_it_needs(const softxent_block *b, softxent_op op)
{
    if (b->n_samples == 0) return 1;
    switch (op) {
    case OP_CROSS_ENTROPY: return b->loss && (b->labels ? has_labels(b) && !b->target : b->target != NULL);
    case OP_LOGSUMEXP: return b->loss != NULL;
    default: return b->out != NULL;
    }
}

enum dtype { F32, F64 };

static int call(const softxent_block *b, softxent_op op, enum dtype dtype, ptrdiff_t *bad_sample)
{
    if (!is_sound(b) || !has_what_it_needs(b, op)) return SOFTXENT_BAD_ARGUMENT;
    const softxent_isa *isa = b->isa;
    if (!isa && softxent_isa_select(NULL, &isa) != SOFTXENT_OK) return SOFTXENT_BAD_ISA;
    softxent_block own = *b;
    if (op != OP_CROSS_ENTROPY) { /* a block may serve both: what only the loss has is not looked at */
        own.labels = own.target = own.grad_output = NULL;
        own.grad_scale = 1;
        own.accumulate = 0;
    }
    const ptrdiff_t done = (dtype == F32 ? isa->run_f32 : isa->run_f64)(&own, op);
    if (done == b->n_samples) return SOFTXENT_OK;
    if (bad_sample) *bad_sample = done;
    return SOFTXENT_BAD_LABEL;
}

int softxent_cross_entropy_f32(const softxent_block *b, ptrdiff_t *bad) { return call(b, OP_CROSS_ENTROPY, F32, bad); }
int softxent_cross_entropy_f64(const softxent_block *b, ptrdiff_t *bad) { return call(b, OP_CROSS_ENTROPY, F64, bad); }
int softxent_softmax_f32(const softxent_block *b) { return call(b, OP_SOFTMAX, F32, NULL); }
int softxent_softmax_f64(const softxent_block *b) { return call(b, OP_SOFTMAX, F64, NULL); }
int softxent_log_softmax_f32(const softxent_block *b) { return call(b, OP_LOG_SOFTMAX, F32, NULL); }
int softxent_log_softmax_f64(const softxent_block *b) { return call(b, OP_LOG_SOFTMAX, F64, NULL); }
int softxent_logsumexp_f32(const softxent_block *b) { return call(b, OP_LOGSUMEXP, F32, NULL); }
int softxent_logsumexp_f64(const softxent_block *b) { return call(b, OP_LOGSUMEXP, F64, NULL); }

int softxent_check_labels(const softxent_block *b, ptrdiff_t *n_counted, ptrdiff_t *bad_sample)
{
    if (!b || b->size != sizeof *b || b->n_samples < 0 || b->n_classes < 1) return SOFTXENT_BAD_ARGUMENT;
    if (b->n_samples > 0 && !has_labels(b)) return SOFTXENT_BAD_ARGUMENT;
    ptrdiff_t counted = 0;
    for (ptrdiff_t i = 0; i < b->n_samples; ++i) {
        const ptrdiff_t y = label_class(b, i);
        if (y == LABEL_BAD) {
            if (bad_sample) *bad_sample = i;
            return SOFTXENT_BAD_LABEL;
        }
        counted += y != LABEL_IGNORED;
    }
    if (n_counted) *n_counted = counted;
    return SOFTXENT_OK;
}

const char *softxent_strerror(int status)
{
    switch (status) {
    case SOFTXENT_OK: return "success";
    case SOFTXENT_BAD_ARGUMENT: return "bad argument: a null pointer, a negative size or an unknown type";
    case SOFTXENT_BAD_LABEL: return "a label is not a class in [0, n_classes) and not ignore_index";
    case SOFTXENT_BAD_ISA: return "the instruction set is unknown, or cannot run on this machine";
    default: return "unknown status";
    }
}
