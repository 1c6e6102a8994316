# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""Which thread takes which samples: blocks of samples spread over threads, and the way from NumPy to them.

Two ways lead to the C library. `plain_cross_entropy` takes the common call (contiguous floats, index labels, no
option) straight from the public function through the NumPy C-API. `compute` takes everything else, every array with
two sample axes and, where it has one, the class axis, as the Python floor has checked and folded it. Both describe the
work in a `Job`, and `run` carries it out.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset

from softxent._openmp cimport (
    SOFTXENT_OPENMP_VERSION, omp_get_max_threads, omp_in_parallel, softxent_add_team, softxent_forked,
    softxent_watch_forks,
)
from softxent.cext cimport *

cnp.import_array()

ctypedef fused real:
    float
    double

OPENMP_VERSION = SOFTXENT_OPENMP_VERSION

if softxent_watch_forks() != 0:
    raise MemoryError("no memory for the handler of forks")


cdef int openmp_threads = omp_get_max_threads()


# The threads that a call may have of those that it is to have: in a forked child, where the OpenMP runtime of the
# parent is not usable, and inside another parallel region just the calling one; and where OpenMP's own number has been
# lowered since the import, as threadpoolctl does, no more than that.
cdef int allowed_threads(int n_threads) noexcept nogil:
    cdef int limit = omp_get_max_threads()
    if softxent_forked or omp_in_parallel():
        return 1
    return min(n_threads, limit) if limit < openmp_threads else n_threads


def limit_of_threads(int n_threads):
    """What is allowed of so many, and what decided it; None if nothing did."""
    cdef int allowed = allowed_threads(n_threads)
    if softxent_forked:
        return 1, "a forked child process"
    return allowed, "OpenMP's own limit" if allowed < n_threads else None


# ------------------------------------------------------------------------------------------------------------------
# The instruction set: chosen at the first call, so that a bad SOFTXENT_ISA is an error there and not at import.

cdef const softxent_isa *chosen_isa = NULL


cdef const softxent_isa *isa() except NULL:
    if chosen_isa == NULL:
        use_isa(None)
    return chosen_isa


def usable_isas():
    """The instruction sets that this build and this machine have kernels for, the fastest first."""
    cdef int i = 0
    names = []
    while softxent_isa_usable(i) != NULL:
        names.append(softxent_isa_usable(i).decode())
        i += 1
    return names


def isa_in_use():
    """The name of the instruction set whose kernels run."""
    return softxent_isa_name(isa()).decode()


def use_isa(name):
    """Run the kernels called `name` from now on; None stands for SOFTXENT_ISA or else the fastest."""
    global chosen_isa
    cdef const softxent_isa *found = NULL
    cdef bytes encoded
    cdef const char *asked_for = NULL
    if name is not None:
        encoded = name.encode()
        asked_for = encoded
    if softxent_isa_select(asked_for, &found) != SOFTXENT_OK:
        import os

        asked = f"SOFTXENT_ISA={os.environ.get('SOFTXENT_ISA')!r}" if name is None else f"isa {name!r}"
        raise RuntimeError(f"{asked} is unknown or cannot run here; usable are: {', '.join(usable_isas())}")
    chosen_isa = found


# ------------------------------------------------------------------------------------------------------------------
# Jobs: what to compute, over which samples, in how many parts.

cdef enum Op:
    CROSS_ENTROPY
    RANK
    HVP
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP
    JVP
    JACOBIAN

OPS = {
    "cross_entropy": CROSS_ENTROPY, "rank": RANK, "hvp": HVP, "softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX,
    "logsumexp": LOGSUMEXP, "jvp": JVP, "jacobian": JACOBIAN,
}
HESS_KINDS = {"exact": SOFTXENT_EXACT, "xgboost": SOFTXENT_XGBOOST, "lightgbm": SOFTXENT_LIGHTGBM}

# The losses are summed part by part and then the parts in order, so the number of parts must not depend on the number
# of threads. It is bounded, because a part's sum is kept; a part has some 16 K logits at least, or it is not worth a
# thread's while to fetch it.
DEF MAX_PARTS = 512
DEF PART_LOGITS = 16384
# Labels in a part when nothing but they are looked at: some 20 microseconds of work.
DEF PART_LABELS = 65536
# How often a thread fetches parts, all being equal. Those that it fetches together lie behind each other, and while the
# kernels work on a sample they ask for the next.
DEF FETCHES = 16
# Losses that are only to be summed pass through so long a buffer on the stack.
DEF LOSS_BUFFER = 1024
# After so many logits, tenths of a second or with rare options seconds, Python gets to see whether somebody pressed
# Ctrl-C.
DEF ROUND_LOGITS = 1 << 28
# Below so many logits a second thread costs more than it brings: some 10 microseconds of work.
DEF SERIAL_LOGITS = 32768


# From one sample to the next in one array, in bytes: along the outer and the inner sample axis.
cdef struct Steps:
    Py_ssize_t outer
    Py_ssize_t inner


# The block describes sample (0, 0) and the strides of the inner sample axis.
cdef struct Job:
    softxent_block block
    softxent_options options
    Op op
    bint f32
    Py_ssize_t n_outer
    Py_ssize_t n_inner
    Py_ssize_t part_samples
    Py_ssize_t n_logits
    Steps logits
    Steps labels
    Steps target
    Steps where
    Steps sample_weight
    Steps direction
    Steps loss
    Steps out
    Steps hess
    Steps rank
    Steps top
    Steps grad_output


# What a part leaves: the sum of its losses, and the first sample whose label is no class (or -1).
cdef struct Part:
    double loss
    Py_ssize_t bad_sample


cdef void start_job(Job *job, Op op, bint f32, Py_ssize_t n_outer, Py_ssize_t n_inner,
                    Py_ssize_t n_classes) except *:
    memset(job, 0, sizeof(Job))
    job.block.size = sizeof(softxent_block)
    job.block.isa = isa()
    job.block.n_classes = n_classes
    job.block.grad_scale = 1.0
    job.options.size = sizeof(softxent_options)
    job.op = op
    job.f32 = f32
    job.n_outer = n_outer
    job.n_inner = n_inner
    cdef Py_ssize_t sample_logits = n_classes * n_classes if op == JACOBIAN else n_classes
    job.n_logits = n_outer * n_inner * sample_logits
    job.part_samples = part_samples(n_outer * n_inner, sample_logits)


cdef Py_ssize_t part_samples(Py_ssize_t n_samples, Py_ssize_t sample_logits) noexcept nogil:
    cdef Py_ssize_t samples = max((n_samples + MAX_PARTS - 1) // MAX_PARTS,
                                  (PART_LOGITS + sample_logits - 1) // sample_logits)
    return (samples + 15) // 16 * 16 if samples > 16 else samples


cdef inline int call_kernel(const Job *job, const softxent_block *b, ptrdiff_t *bad_sample) noexcept nogil:
    if job.op == CROSS_ENTROPY:
        return (softxent_cross_entropy_f32 if job.f32 else softxent_cross_entropy_f64)(b, bad_sample)
    if job.op == RANK:
        return (softxent_cross_entropy_and_rank_f32 if job.f32 else softxent_cross_entropy_and_rank_f64)(b, bad_sample)
    if job.op == HVP:
        return (softxent_cross_entropy_hvp_f32 if job.f32 else softxent_cross_entropy_hvp_f64)(b, bad_sample)
    if job.op == SOFTMAX:
        return (softxent_softmax_f32 if job.f32 else softxent_softmax_f64)(b)
    if job.op == LOG_SOFTMAX:
        return (softxent_log_softmax_f32 if job.f32 else softxent_log_softmax_f64)(b)
    if job.op == JVP:
        return (softxent_softmax_jvp_f32 if job.f32 else softxent_softmax_jvp_f64)(b)
    if job.op == JACOBIAN:
        return (softxent_softmax_jacobian_f32 if job.f32 else softxent_softmax_jacobian_f64)(b)
    return (softxent_logsumexp_f32 if job.f32 else softxent_logsumexp_f64)(b)


cdef inline void *moved(const void *p, const Steps *steps, Py_ssize_t outer, Py_ssize_t inner) noexcept nogil:
    return NULL if p == NULL else <char *> p + outer * steps.outer + inner * steps.inner


# Makes `b` the block of `n` samples from (outer, inner) on, all of one outer index.
cdef void set_block(softxent_block *b, const Job *job, Py_ssize_t outer, Py_ssize_t inner,
                    Py_ssize_t n) noexcept nogil:
    b[0] = job.block
    b.n_samples = n
    b.logits = moved(b.logits, &job.logits, outer, inner)
    b.labels = moved(b.labels, &job.labels, outer, inner)
    b.target = moved(b.target, &job.target, outer, inner)
    b.where = <const unsigned char *> moved(b.where, &job.where, outer, inner)
    b.sample_weight = moved(b.sample_weight, &job.sample_weight, outer, inner)
    b.direction = moved(b.direction, &job.direction, outer, inner)
    b.loss = moved(b.loss, &job.loss, outer, inner)
    b.out = moved(b.out, &job.out, outer, inner)
    b.hess = moved(b.hess, &job.hess, outer, inner)
    b.rank = <int64_t *> moved(b.rank, &job.rank, outer, inner)
    b.top = <int64_t *> moved(b.top, &job.top, outer, inner)
    b.grad_output = moved(b.grad_output, &job.grad_output, outer, inner)


cdef inline double sum_of(const real *x, Py_ssize_t n) noexcept nogil:
    cdef double s[4]
    cdef Py_ssize_t i = 0
    s[0] = s[1] = s[2] = s[3] = 0
    while i + 4 <= n:
        s[0] += x[i]
        s[1] += x[i + 1]
        s[2] += x[i + 2]
        s[3] += x[i + 3]
        i += 4
    while i < n:
        s[0] += x[i]
        i += 1
    return (s[0] + s[1]) + (s[2] + s[3])


cdef Part run_part(const Job *job, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef double losses[LOSS_BUFFER]
    cdef softxent_block b
    cdef Part part
    cdef Py_ssize_t outer, inner, n
    cdef ptrdiff_t bad = -1
    cdef bint summed = job.op in (CROSS_ENTROPY, RANK) and job.block.loss == NULL
    part.loss = 0
    part.bad_sample = -1
    while begin < end:
        outer = begin // job.n_inner
        inner = begin - outer * job.n_inner
        n = min(end - begin, job.n_inner - inner)
        if summed:
            n = min(n, <Py_ssize_t> LOSS_BUFFER)
        set_block(&b, job, outer, inner, n)
        if summed:
            b.loss = losses
            b.loss_stride = 1
            b.loss_type = SOFTXENT_REAL
        if call_kernel(job, &b, &bad) != SOFTXENT_OK:
            part.bad_sample = begin + bad
            return part
        if summed:
            part.loss += sum_of(<float *> losses, n) if job.f32 else sum_of(losses, n)
        begin += n
    return part


# A call's share of the threads that it may have: it divides them with the calls that run at the same time. What has
# joined must leave.
cdef int join_teams(int n_threads) noexcept nogil:
    cdef long others = softxent_add_team(1)
    return max(1, allowed_threads(n_threads) // (1 + <int> others))


cdef void leave_teams() noexcept nogil:
    softxent_add_team(-1)


# Every part, over the threads, in rounds. Returns the sum of the losses, and through `bad_sample` the first bad sample
# or -1. The GIL is let go here and not outside: Cython's prange asks there whether it is held, and where there are
# subinterpreters Python's answer is always yes.
cdef double run(const Job *job, int n_threads, Py_ssize_t *bad_sample) except? -1:
    cdef Part parts[MAX_PARTS]
    cdef Py_ssize_t n_samples = job.n_outer * job.n_inner, step = job.part_samples
    cdef Py_ssize_t n_parts = (n_samples + step - 1) // step
    cdef Py_ssize_t at_once = max(1, ROUND_LOGITS // max(1, job.n_logits // max(1, n_parts)))
    cdef Py_ssize_t p, chunk, begin = 0, end = min(n_parts, at_once)
    cdef bint is_parallel = n_threads > 1 and n_parts > 1 and job.n_logits >= SERIAL_LOGITS
    cdef double loss = 0
    if is_parallel:
        n_threads = join_teams(<int> min(<Py_ssize_t> n_threads, n_parts))
    try:
        while begin < n_parts:
            with nogil:
                if is_parallel:
                    chunk = max(1, (end - begin) // (n_threads * FETCHES))
                    for p in prange(begin, end, num_threads=n_threads, schedule="dynamic", chunksize=chunk):
                        parts[p] = run_part(job, p * step, min((p + 1) * step, n_samples))
                else:
                    for p in range(begin, end):
                        parts[p] = run_part(job, p * step, min((p + 1) * step, n_samples))
            begin, end = end, min(n_parts, end + at_once)
            if begin < n_parts:
                PyErr_CheckSignals()
    finally:
        if is_parallel:
            leave_teams()
    bad_sample[0] = -1
    for p in range(n_parts):
        loss += parts[p].loss
        if parts[p].bad_sample >= 0:
            bad_sample[0] = parts[p].bad_sample
            break
    return loss


# ------------------------------------------------------------------------------------------------------------------
# Labels.

# The C library's name for a NumPy integer type, or -1.
cdef int label_type_of(cnp.ndarray labels) noexcept:
    cdef int size = <int> cnp.PyArray_ITEMSIZE(labels)
    cdef int log2_size = 0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3
    if cnp.PyArray_ISSIGNED(labels):
        return SOFTXENT_INT8 + log2_size
    if cnp.PyArray_ISUNSIGNED(labels):
        return SOFTXENT_UINT8 + log2_size
    return -1


# Takes native, aligned integer labels of two sample axes.
cdef void set_labels(Job *job, cnp.ndarray labels, ignore_index) except *:
    job.block.labels = cnp.PyArray_DATA(labels)
    job.block.label_type = label_type_of(labels)
    job.labels = steps_of(labels)
    job.block.labels_stride = job.labels.inner // cnp.PyArray_ITEMSIZE(labels)
    set_ignore_index(job, ignore_index)


cdef inline Steps steps_of(cnp.ndarray array) noexcept:
    return Steps(cnp.PyArray_STRIDE(array, 0), cnp.PyArray_STRIDE(array, 1))


# A number that does not fit in 64 bits is no index's: it ignores nothing.
cdef inline void set_ignore_index(Job *job, ignore_index) except *:
    if ignore_index is not None and -2**63 <= ignore_index < 2**63:
        job.block.use_ignore_index = 1
        job.block.ignore_index = ignore_index


# The number of labels of a part that count, or -1 if one is no class.
cdef Py_ssize_t count_part(const Job *job, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t outer, inner, n, counted = 0
    cdef ptrdiff_t n_counted = 0
    cdef softxent_block b
    while begin < end:
        outer = begin // job.n_inner
        inner = begin - outer * job.n_inner
        n = min(end - begin, job.n_inner - inner)
        set_block(&b, job, outer, inner, n)
        if softxent_check_labels(&b, &n_counted, NULL) != SOFTXENT_OK:
            return -1
        counted += n_counted
        begin += n
    return counted


# The number of labels that count, or -1 if one is no class.
cdef Py_ssize_t count_labels(const Job *job, int n_threads) noexcept:
    cdef Py_ssize_t counts[MAX_PARTS]
    cdef Py_ssize_t n_samples = job.n_outer * job.n_inner, counted = 0, p
    cdef Py_ssize_t step = max(<Py_ssize_t> PART_LABELS, (n_samples + MAX_PARTS - 1) // MAX_PARTS)
    cdef Py_ssize_t n_parts = (n_samples + step - 1) // step
    if n_parts <= 1:
        return count_part(job, 0, n_samples)
    if n_threads <= 1:
        with nogil:
            return count_part(job, 0, n_samples)
    n_threads = join_teams(n_threads)
    for p in prange(n_parts, num_threads=n_threads, schedule="dynamic", nogil=True):
        counts[p] = count_part(job, p * step, min((p + 1) * step, n_samples))
    leave_teams()
    for p in range(n_parts):
        if counts[p] < 0:
            return -1
        counted += counts[p]
    return counted


def check_labels(int n_threads, cnp.ndarray labels, Py_ssize_t n_classes, ignore_index):
    """The number of labels (2-D, native integers) that are not ignored; -1 if one of them is no class."""
    cdef Job job
    start_job(&job, CROSS_ENTROPY, False, labels.shape[0], labels.shape[1], n_classes)
    set_labels(&job, labels, ignore_index)
    return count_labels(&job, n_threads)


def total_weight(cnp.ndarray labels, Py_ssize_t n_classes, ignore_index, const real[:, :] sample_weight,
                 const real[::1] class_weight):
    """The sum of the labels' class weights times the samples' weights, over those not ignored; -1 as above."""
    cdef Job job
    cdef double total = 0, part = 0
    cdef Py_ssize_t outer
    cdef int status = SOFTXENT_OK
    cdef softxent_block b
    start_job(&job, CROSS_ENTROPY, real is float, labels.shape[0], labels.shape[1], n_classes)
    set_labels(&job, labels, ignore_index)
    set_weights[real](&job, sample_weight, None, class_weight)
    with nogil:
        for outer in range(job.n_outer):
            set_block(&b, &job, outer, 0, job.n_inner)
            if real is float:
                status = softxent_total_weight_f32(&b, &part, NULL)
            else:
                status = softxent_total_weight_f64(&b, &part, NULL)
            if status != SOFTXENT_OK:
                break
            total += part
    return total if status == SOFTXENT_OK else -1.0


# ------------------------------------------------------------------------------------------------------------------
# The general call. What may be in half precision comes as an array, for a fused type would need a form for each way
# to mix them; weights, always of the type that is computed in, come as typed memoryviews.

cdef inline int element_type(cnp.ndarray array) noexcept:
    if cnp.PyArray_ITEMSIZE(array) != 2:
        return SOFTXENT_REAL
    return SOFTXENT_FLOAT16 if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT16 else SOFTXENT_BFLOAT16


# The stride of an axis, in elements.
cdef inline Py_ssize_t stride_of(cnp.ndarray array, int axis) noexcept:
    return cnp.PyArray_STRIDE(array, axis) // cnp.PyArray_ITEMSIZE(array)


# What the block says of an array of three axes, or more: its first entry is returned.
cdef inline void *describe(cnp.ndarray array, Steps *steps, ptrdiff_t *sample_stride, ptrdiff_t *class_stride,
                           int *type_) noexcept:
    steps[0] = steps_of(array)
    sample_stride[0] = stride_of(array, 1)
    class_stride[0] = stride_of(array, cnp.PyArray_NDIM(array) - 1)
    type_[0] = element_type(array)
    return cnp.PyArray_DATA(array)


cdef void set_weights(Job *job, const real[:, :] sample_weight, const real[:, :] grad_output,
                      const real[::1] class_weight) noexcept:
    cdef Py_ssize_t size = sizeof(real)
    if sample_weight is not None:
        job.block.sample_weight = &sample_weight[0, 0]
        job.sample_weight = Steps(sample_weight.strides[0], sample_weight.strides[1])
        job.block.sample_weight_stride = sample_weight.strides[1] // size
    if grad_output is not None:
        job.block.grad_output = &grad_output[0, 0]
        job.grad_output = Steps(grad_output.strides[0], grad_output.strides[1])
        job.block.grad_output_stride = grad_output.strides[1] // size
    if class_weight is not None:
        job.options.class_weight = &class_weight[0]
        job.block.options = &job.options


cdef void set_inputs(Job *job, cnp.ndarray logits, cnp.ndarray target, cnp.ndarray where,
                     cnp.ndarray direction) noexcept:
    cdef softxent_block *b = &job.block
    cdef int bools
    b.logits = describe(logits, &job.logits, &b.logits_sample_stride, &b.logits_class_stride, &b.logits_type)
    if target is not None:
        b.target = describe(target, &job.target, &b.target_sample_stride, &b.target_class_stride, &b.target_type)
    if where is not None:
        b.where = <const unsigned char *> describe(where, &job.where, &b.where_sample_stride, &b.where_class_stride,
                                                   &bools)
    if direction is not None:
        b.direction = describe(direction, &job.direction, &b.direction_sample_stride, &b.direction_class_stride,
                               &b.direction_type)


# Of int64.
cdef void set_ranks(Job *job, cnp.ndarray rank, cnp.ndarray top) noexcept:
    job.block.rank = <int64_t *> cnp.PyArray_DATA(rank)
    job.block.top = <int64_t *> cnp.PyArray_DATA(top)
    job.rank = steps_of(rank)
    job.top = steps_of(top)
    job.block.rank_stride = stride_of(rank, 1)
    job.block.top_stride = stride_of(top, 1)


cdef void set_outputs(Job *job, cnp.ndarray loss, cnp.ndarray out, cnp.ndarray hess) except *:
    cdef softxent_block *b = &job.block
    cdef int hess_type
    if loss is not None:
        b.loss = cnp.PyArray_DATA(loss)
        job.loss = steps_of(loss)
        b.loss_stride = stride_of(loss, 1)
        b.loss_type = element_type(loss)
    if out is not None:
        b.out = describe(out, &job.out, &b.out_sample_stride, &b.out_class_stride, &b.out_type)
        b.out_row_stride = stride_of(out, 2)
    if hess is not None:
        b.hess = describe(hess, &job.hess, &b.hess_sample_stride, &b.hess_class_stride, &hess_type)
        if hess_type != b.out_type:
            raise TypeError("hess and out must have the same dtype")


def compute(str op, int n_threads, cnp.ndarray logits, *, cnp.ndarray labels=None, ignore_index=None,
            cnp.ndarray target=None, cnp.ndarray where=None, cnp.ndarray direction=None,
            const real[:, :] sample_weight=None, const real[:, :] grad_output=None, const real[::1] class_weight=None,
            options=None, cnp.ndarray loss=None, cnp.ndarray out=None, cnp.ndarray hess=None, str hess_kind="exact",
            cnp.ndarray rank=None, cnp.ndarray top=None, bint accumulate=False, double grad_scale=1.0):
    """What `op` names, of every sample; `options` are (label_smoothing, temperature, softcap, z_loss, log_base), 0 for
    what is left out. Losses that have no array to go to are summed.

    Returns (sum of the losses, whether every label was a class).
    """
    cdef Job job
    cdef Py_ssize_t bad = -1
    cdef double total
    start_job(&job, OPS[op], real is float, logits.shape[0], logits.shape[1], logits.shape[2])
    set_inputs(&job, logits, target, where, direction)
    set_weights[real](&job, sample_weight, grad_output, class_weight)
    set_outputs(&job, loss, out, hess)
    if rank is not None:
        set_ranks(&job, rank, top)
    if labels is not None:
        set_labels(&job, labels, ignore_index)
    if options is not None:
        job.options.label_smoothing, job.options.temperature, job.options.softcap = options[0], options[1], options[2]
        job.options.z_loss, job.options.log_base = options[3], options[4]
        job.block.options = &job.options
    job.block.hess_kind = HESS_KINDS[hess_kind]
    job.block.accumulate = accumulate
    job.block.grad_scale = grad_scale
    total = run(&job, n_threads, &bad)
    return total, bad < 0


# ------------------------------------------------------------------------------------------------------------------
# The plain call.

cdef inline bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two contiguous arrays share no byte."""
    cdef uintptr_t p = <uintptr_t> cnp.PyArray_DATA(a), q = <uintptr_t> cnp.PyArray_DATA(b)
    return p + <uintptr_t> cnp.PyArray_NBYTES(a) <= q or q + <uintptr_t> cnp.PyArray_NBYTES(b) <= p


cdef inline bint is_plain(object array) noexcept:
    return cnp.PyArray_CheckExact(array) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> array)


cdef inline bint is_float(object x, double value) noexcept:
    """Whether it is a float of this value; nothing else, whatever it may be equal to."""
    return type(x) is float and <double> x == value


def plain_cross_entropy(bint with_grad, int n_threads, object logits, object labels, object axis, object class_weight,
                        object sample_weight, object where, object ignore_index, object label_smoothing,
                        object temperature, object softcap, object z_loss, object base, object reduction,
                        object normalizer, object out):
    """The call that most calls are; None if this is not one, or if a label is no class: the general way explains.

    float32 or float64 logits and integer labels in native, C-contiguous arrays, the class axis last, ignore_index None
    or an int, reduction "mean" or "sum", `out` None or such an array, apart from the inputs or the logits themselves,
    every other option at its default. Returns the loss and, for with_grad, the pair of loss and gradient.
    """
    if not (type(axis) is int and axis == -1 and class_weight is None and sample_weight is None and where is None and
            softcap is None and base is None and normalizer is None and is_float(label_smoothing, 0) and
            is_float(temperature, 1) and is_float(z_loss, 0)):
        return None
    if not (is_plain(logits) and is_plain(labels) and (ignore_index is None or type(ignore_index) is int)):
        return None
    cdef cnp.ndarray z = logits, y = labels, gradient = None
    cdef int ndim = cnp.PyArray_NDIM(z), dtype = cnp.PyArray_TYPE(z), label_type = label_type_of(y)
    cdef Py_ssize_t n_samples = 1, n_classes, n_counted
    cdef int i
    if dtype not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or label_type < 0 or ndim != cnp.PyArray_NDIM(y) + 1:
        return None
    for i in range(ndim - 1):
        if cnp.PyArray_DIM(z, i) != cnp.PyArray_DIM(y, i):
            return None
        n_samples *= cnp.PyArray_DIM(z, i)
    n_classes = cnp.PyArray_DIM(z, ndim - 1)
    if type(reduction) is not str:
        return None
    cdef bint is_mean = reduction == "mean"
    if n_samples == 0 or n_classes == 0 or not (is_mean or reduction == "sum"):
        return None

    cdef Job job
    cdef Py_ssize_t bad = -1
    cdef double total
    start_job(&job, CROSS_ENTROPY, dtype == cnp.NPY_FLOAT32, 1, n_samples, n_classes)
    job.logits.inner = job.out.inner = n_classes * cnp.PyArray_ITEMSIZE(z)
    job.labels.inner = cnp.PyArray_ITEMSIZE(y)
    job.block.logits = cnp.PyArray_DATA(z)
    job.block.logits_sample_stride = job.block.out_sample_stride = n_classes
    job.block.logits_class_stride = job.block.out_class_stride = 1
    job.block.labels = cnp.PyArray_DATA(y)
    job.block.labels_stride = 1
    job.block.label_type = label_type
    set_ignore_index(&job, ignore_index)
    if with_grad:
        if out is None:
            gradient = cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(z), dtype, 0)
        else:
            if not (is_plain(out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out)):
                return None
            gradient = out
            if cnp.PyArray_TYPE(gradient) != dtype or not cnp.PyArray_SAMESHAPE(gradient, z):
                return None
            if not (apart(gradient, z) or cnp.PyArray_DATA(gradient) == cnp.PyArray_DATA(z)) or not apart(gradient, y):
                return None
        job.block.out = cnp.PyArray_DATA(gradient)
    n_counted = n_samples
    # Known beforehand: how many count, and that the caller's array is not touched because of a bad label.
    if out is not None or job.block.use_ignore_index:
        n_counted = count_labels(&job, n_threads)
    if n_counted > 0:
        if is_mean:
            job.block.grad_scale = 1.0 / n_counted
        total = run(&job, n_threads, &bad)
    if n_counted <= 0 or bad >= 0:
        return None
    if is_mean:
        total /= n_counted
    return (total, gradient) if with_grad else total
