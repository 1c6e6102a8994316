# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""Which thread takes which samples: blocks of samples spread over threads, and the way from NumPy to them.

Two ways lead to the C library. `plain_cross_entropy` takes the common call (contiguous floats, index labels, no
option) straight from the public function through the NumPy C-API. `cross_entropy` and `softmax` take everything else
as typed memoryviews of two sample axes and the class axis, which the Python floor has checked. Both describe the work
in a `Job`, and `run` carries it out.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from softxent._openmp cimport SOFTXENT_OPENMP_VERSION
from softxent.cext cimport *

cnp.import_array()

ctypedef fused real:
    float
    double

OPENMP_VERSION = SOFTXENT_OPENMP_VERSION


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
    cdef bytes encoded = b"" if name is None else name.encode()
    cdef const char *asked_for = encoded
    if softxent_isa_select(NULL if name is None else asked_for, &found) != SOFTXENT_OK:
        import os

        asked = f"SOFTXENT_ISA={os.environ.get('SOFTXENT_ISA')!r}" if name is None else f"isa {name!r}"
        raise RuntimeError(f"{asked} is unknown or cannot run here; usable are: {', '.join(usable_isas())}")
    chosen_isa = found


# ------------------------------------------------------------------------------------------------------------------
# Jobs: what to compute, over which samples, in how many parts.

cdef enum Op:
    CROSS_ENTROPY
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP

OPS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX, "logsumexp": LOGSUMEXP}

# The losses are summed part by part and then the parts in order, so the number of parts must not depend on the number
# of threads. It is bounded, because a part's sum is kept; a part has some 16 K logits at least, or it is not worth a
# thread's while to fetch it.
DEF MAX_PARTS = 512
DEF PART_LOGITS = 16384
# Losses that are only to be summed pass through so long a buffer on the stack.
DEF LOSS_BUFFER = 256
# Below so many logits a second thread costs more than it brings: some 10 microseconds of work.
DEF SERIAL_LOGITS = 32768


# The block describes sample (0, 0) and the strides of the inner sample axis; outer_strides are those of the other.
# Strides count elements of each array's own type.
cdef struct Strides:
    Py_ssize_t logits
    Py_ssize_t labels
    Py_ssize_t target
    Py_ssize_t loss
    Py_ssize_t out
    Py_ssize_t grad_output


cdef struct Job:
    softxent_block block
    Op op
    Py_ssize_t itemsize
    Py_ssize_t label_size
    Py_ssize_t n_outer
    Py_ssize_t n_inner
    Strides outer_strides
    Py_ssize_t part_samples


# What a part leaves: the sum of its losses, and the first sample whose label is no class (or -1).
cdef struct Part:
    double loss
    Py_ssize_t bad_sample


cdef void start_job(Job *job, Op op, Py_ssize_t itemsize, Py_ssize_t n_outer, Py_ssize_t n_inner,
                    Py_ssize_t n_classes) except *:
    memset(job, 0, sizeof(Job))
    job.block.size = sizeof(softxent_block)
    job.block.isa = isa()
    job.block.n_classes = n_classes
    job.block.grad_scale = 1.0
    job.op = op
    job.itemsize = itemsize
    job.n_outer = n_outer
    job.n_inner = n_inner
    job.part_samples = part_samples(n_outer * n_inner, n_classes)


cdef Py_ssize_t part_samples(Py_ssize_t n_samples, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t samples = max((n_samples + MAX_PARTS - 1) // MAX_PARTS,
                                  (PART_LOGITS + n_classes - 1) // n_classes)
    return (samples + 15) // 16 * 16 if samples > 16 else samples


cdef inline int call_kernel(const Job *job, const softxent_block *b, ptrdiff_t *bad_sample) noexcept nogil:
    cdef bint f32 = job.itemsize == sizeof(float)
    if job.op == CROSS_ENTROPY:
        return (softxent_cross_entropy_f32 if f32 else softxent_cross_entropy_f64)(b, bad_sample)
    if job.op == SOFTMAX:
        return (softxent_softmax_f32 if f32 else softxent_softmax_f64)(b)
    if job.op == LOG_SOFTMAX:
        return (softxent_log_softmax_f32 if f32 else softxent_log_softmax_f64)(b)
    return (softxent_logsumexp_f32 if f32 else softxent_logsumexp_f64)(b)


cdef inline void *moved(const void *p, Py_ssize_t elements, Py_ssize_t itemsize) noexcept nogil:
    return NULL if p == NULL else <char *> p + elements * itemsize


# The block of `n` samples from (outer, inner) on, all of one outer index.
cdef softxent_block block_at(const Job *job, Py_ssize_t outer, Py_ssize_t inner, Py_ssize_t n) noexcept nogil:
    cdef softxent_block b = job.block
    cdef const Strides *s = &job.outer_strides
    cdef Py_ssize_t size = job.itemsize
    b.n_samples = n
    b.logits = moved(b.logits, outer * s.logits + inner * b.logits_sample_stride, size)
    b.labels = moved(b.labels, outer * s.labels + inner * b.labels_stride, job.label_size)
    b.target = moved(b.target, outer * s.target + inner * b.target_sample_stride, size)
    b.loss = moved(b.loss, outer * s.loss + inner * b.loss_stride, size)
    b.out = moved(b.out, outer * s.out + inner * b.out_sample_stride, size)
    b.grad_output = moved(b.grad_output, outer * s.grad_output + inner * b.grad_output_stride, size)
    return b


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
    cdef bint summed = job.op == CROSS_ENTROPY and job.block.loss == NULL
    part.loss = 0
    part.bad_sample = -1
    while begin < end:
        outer = begin // job.n_inner
        inner = begin - outer * job.n_inner
        n = min(end - begin, job.n_inner - inner)
        if summed:
            n = min(n, <Py_ssize_t> LOSS_BUFFER)
        b = block_at(job, outer, inner, n)
        if summed:
            b.loss = losses
            b.loss_stride = 1
        if call_kernel(job, &b, &bad) != SOFTXENT_OK:
            part.bad_sample = begin + bad
            return part
        if summed:
            part.loss += sum_of(<float *> losses, n) if job.itemsize == sizeof(float) else sum_of(losses, n)
        begin += n
    return part


# Every part, over the threads. Returns the sum of the losses, and through `bad_sample` the first bad sample or -1.
cdef double run(const Job *job, int n_threads, Py_ssize_t *bad_sample) noexcept nogil:
    cdef Part parts[MAX_PARTS]
    cdef Py_ssize_t n_samples = job.n_outer * job.n_inner, step = job.part_samples
    cdef Py_ssize_t n_parts = (n_samples + step - 1) // step
    cdef Py_ssize_t p
    cdef double loss = 0
    if n_threads > n_parts:
        n_threads = <int> n_parts
    if n_threads <= 1 or n_samples * job.block.n_classes < SERIAL_LOGITS:
        for p in range(n_parts):
            parts[p] = run_part(job, p * step, min((p + 1) * step, n_samples))
    else:
        for p in prange(n_parts, num_threads=n_threads, schedule="dynamic"):
            parts[p] = run_part(job, p * step, min((p + 1) * step, n_samples))
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
    job.label_size = cnp.PyArray_ITEMSIZE(labels)
    job.block.labels = cnp.PyArray_DATA(labels)
    job.block.label_type = label_type_of(labels)
    job.outer_strides.labels = cnp.PyArray_STRIDE(labels, 0) // job.label_size
    job.block.labels_stride = cnp.PyArray_STRIDE(labels, 1) // job.label_size
    set_ignore_index(job, ignore_index)


# A number that does not fit in 64 bits is no index's: it ignores nothing.
cdef inline void set_ignore_index(Job *job, ignore_index) except *:
    if ignore_index is not None and -2**63 <= ignore_index < 2**63:
        job.block.use_ignore_index = 1
        job.block.ignore_index = ignore_index


# The number of labels that count, or -1 if one is no class.
cdef Py_ssize_t count_labels(const Job *job) noexcept nogil:
    cdef Py_ssize_t outer, counted = 0
    cdef ptrdiff_t n = 0
    cdef softxent_block b
    for outer in range(job.n_outer):
        b = block_at(job, outer, 0, job.n_inner)
        if softxent_check_labels(&b, &n, NULL) != SOFTXENT_OK:
            return -1
        counted += n
    return counted


def check_labels(cnp.ndarray labels, Py_ssize_t n_classes, ignore_index):
    """The number of labels (2-D, native integers) that are not ignored; -1 if one of them is no class."""
    cdef Job job
    cdef Py_ssize_t counted
    start_job(&job, CROSS_ENTROPY, sizeof(double), labels.shape[0], labels.shape[1], n_classes)
    set_labels(&job, labels, ignore_index)
    with nogil:
        counted = count_labels(&job)
    return counted


# ------------------------------------------------------------------------------------------------------------------
# The general calls, on memoryviews: (outer samples, inner samples, classes), or without the classes.

cdef void set_logits(Job *job, const real[:, :, :] logits) noexcept:
    job.block.logits = &logits[0, 0, 0]
    job.outer_strides.logits = logits.strides[0] // <Py_ssize_t> sizeof(real)
    job.block.logits_sample_stride = logits.strides[1] // <Py_ssize_t> sizeof(real)
    job.block.logits_class_stride = logits.strides[2] // <Py_ssize_t> sizeof(real)


cdef void set_loss(Job *job, real[:, :] loss) noexcept:
    job.block.loss = &loss[0, 0]
    job.outer_strides.loss = loss.strides[0] // <Py_ssize_t> sizeof(real)
    job.block.loss_stride = loss.strides[1] // <Py_ssize_t> sizeof(real)


cdef void set_out(Job *job, real[:, :, :] out) noexcept:
    job.block.out = &out[0, 0, 0]
    job.outer_strides.out = out.strides[0] // <Py_ssize_t> sizeof(real)
    job.block.out_sample_stride = out.strides[1] // <Py_ssize_t> sizeof(real)
    job.block.out_class_stride = out.strides[2] // <Py_ssize_t> sizeof(real)


def cross_entropy(const real[:, :, :] logits, cnp.ndarray labels, const real[:, :, :] target, real[:, :] loss,
                  real[:, :, :] out, bint accumulate, double grad_scale, const real[:, :] grad_output, ignore_index,
                  int n_threads):
    """Losses into `loss` or, if that is None, their sum as a float; the gradient into `out` unless that is None.

    Either `labels` or `target` is given. Returns (sum of the losses, whether every label was a class).
    """
    cdef Job job
    cdef Py_ssize_t bad = -1
    cdef double total
    start_job(&job, CROSS_ENTROPY, sizeof(real), logits.shape[0], logits.shape[1], logits.shape[2])
    set_logits(&job, logits)
    if labels is not None:
        set_labels(&job, labels, ignore_index)
    else:
        job.block.target = &target[0, 0, 0]
        job.outer_strides.target = target.strides[0] // <Py_ssize_t> sizeof(real)
        job.block.target_sample_stride = target.strides[1] // <Py_ssize_t> sizeof(real)
        job.block.target_class_stride = target.strides[2] // <Py_ssize_t> sizeof(real)
    if loss is not None:
        set_loss(&job, loss)
    if out is not None:
        set_out(&job, out)
        job.block.accumulate = accumulate
        job.block.grad_scale = grad_scale
    if grad_output is not None:
        job.block.grad_output = &grad_output[0, 0]
        job.outer_strides.grad_output = grad_output.strides[0] // <Py_ssize_t> sizeof(real)
        job.block.grad_output_stride = grad_output.strides[1] // <Py_ssize_t> sizeof(real)
    with nogil:
        total = run(&job, n_threads, &bad)
    return total, bad < 0


def softmax(const real[:, :, :] logits, str op, real[:, :, :] out, real[:, :] lse, int n_threads):
    """softmax or log_softmax of the logits into `out`, or their logsumexp into `lse`."""
    cdef Job job
    cdef Py_ssize_t bad
    start_job(&job, OPS[op], sizeof(real), logits.shape[0], logits.shape[1], logits.shape[2])
    set_logits(&job, logits)
    if out is not None:
        set_out(&job, out)
    else:
        set_loss(&job, lse)
    with nogil:
        run(&job, n_threads, &bad)


# ------------------------------------------------------------------------------------------------------------------
# The plain call.

cdef inline bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two contiguous arrays share no byte."""
    cdef uintptr_t p = <uintptr_t> cnp.PyArray_DATA(a), q = <uintptr_t> cnp.PyArray_DATA(b)
    return p + <uintptr_t> cnp.PyArray_NBYTES(a) <= q or q + <uintptr_t> cnp.PyArray_NBYTES(b) <= p


cdef inline bint is_plain(object array) noexcept:
    return cnp.PyArray_CheckExact(array) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> array)


def plain_cross_entropy(object logits, object labels, object ignore_index, object out, object reduction,
                        int n_threads, bint with_grad):
    """The call that most calls are; None if this is not one, or if a label is no class: the general way explains.

    float32 or float64 logits and integer labels in native, C-contiguous arrays, the class axis last, ignore_index None
    or an int, reduction "mean" or "sum", `out` None or such an array, apart from the inputs or the logits themselves.
    Returns the loss and, for with_grad, the pair of loss and gradient.
    """
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
    start_job(&job, CROSS_ENTROPY, cnp.PyArray_ITEMSIZE(z), 1, n_samples, n_classes)
    job.label_size = cnp.PyArray_ITEMSIZE(y)
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
    with nogil:
        n_counted = n_samples
        # Known beforehand: how many count, and that the caller's array is not touched because of a bad label.
        if out is not None or job.block.use_ignore_index:
            n_counted = count_labels(&job)
        if n_counted > 0:
            if is_mean:
                job.block.grad_scale = 1.0 / n_counted
            total = run(&job, n_threads, &bad)
    if n_counted <= 0 or bad >= 0:
        return None
    if is_mean:
        total /= n_counted
    return (total, gradient) if with_grad else total
