/* Softmax regression on the handwritten digits: full-batch gradient descent, the samples spread over threads.
 *
 *     python -c "import numpy as np, importlib.resources as r; d = np.load(r.files('softxent.data') / 'digits.npz'); \
 *                np.c_[d['images'] / 16, d['labels']].astype('f4').tofile('digits.f32')"
 *     cc -O2 train.c $(python -m softxent config --cflags --libs) -lpthread -o train && ./train digits.f32 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <softxent.h>

enum { N_PIXELS = 64, N_CLASSES = 10, MOST_SAMPLES = 2000, N_THREADS = 2, STEPS = 200 };
static float pixels[MOST_SAMPLES][N_PIXELS], weights[N_PIXELS][N_CLASSES], loss[MOST_SAMPLES];
static uint8_t labels[MOST_SAMPLES];
static int n_samples;

/* What a thread has for itself: its range of samples, and its part of the gradient. */
typedef struct {
    int begin, end, status;
    float grad[N_PIXELS][N_CLASSES];
} worker;

/* logits = pixels weights; their gradient in their place; grad = pixels' logits_grad. */
static void *work(void *argument)
{
    worker *w = argument;
    const int n = w->end - w->begin;
    float (*logits)[N_CLASSES] = calloc((size_t)n, sizeof *logits);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < N_PIXELS; ++j)
            for (int k = 0; k < N_CLASSES; ++k) logits[i][k] += pixels[w->begin + i][j] * weights[j][k];

    softxent_block b = {.size = sizeof b, .n_samples = n, .n_classes = N_CLASSES, .grad_scale = 1.0 / n_samples};
    b.logits = b.out = logits; /* in place */
    b.logits_sample_stride = b.out_sample_stride = N_CLASSES, b.logits_class_stride = b.out_class_stride = 1;
    b.labels = labels + w->begin, b.labels_stride = 1, b.label_type = SOFTXENT_UINT8;
    b.loss = loss + w->begin, b.loss_stride = 1;
    w->status = softxent_cross_entropy_f32(&b, NULL);

    memset(w->grad, 0, sizeof w->grad);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < N_PIXELS; ++j)
            for (int k = 0; k < N_CLASSES; ++k) w->grad[j][k] += pixels[w->begin + i][j] * logits[i][k];
    free(logits);
    return NULL;
}

static int read_digits(const char *path)
{
    FILE *file = fopen(path, "rb");
    float row[N_PIXELS + 1];
    if (!file) return 0;
    for (; n_samples < MOST_SAMPLES && fread(row, sizeof row, 1, file) == 1; ++n_samples)
        memcpy(pixels[n_samples], row, sizeof pixels[0]), labels[n_samples] = (uint8_t)row[N_PIXELS];
    fclose(file);
    return n_samples;
}

int main(int argc, char **argv)
{
    if (argc != 2 || !read_digits(argv[1])) return fprintf(stderr, "usage: train digits.f32\n"), 1;
    static worker workers[N_THREADS];
    pthread_t threads[N_THREADS];
    double mean = 0;
    for (int step = 0; step <= STEPS; ++step) {
        for (int t = 0; t < N_THREADS; ++t) {
            workers[t].begin = n_samples * t / N_THREADS, workers[t].end = n_samples * (t + 1) / N_THREADS;
            pthread_create(&threads[t], NULL, work, &workers[t]);
        }
        /* all of them, before the weights change, which they read */
        for (int t = 0; t < N_THREADS; ++t) pthread_join(threads[t], NULL);
        for (int t = 0; t < N_THREADS; ++t) {
            if (workers[t].status) return fprintf(stderr, "%s\n", softxent_strerror(workers[t].status)), 1;
            for (int j = 0; j < N_PIXELS; ++j)
                for (int k = 0; k < N_CLASSES; ++k) weights[j][k] -= 0.2f * workers[t].grad[j][k];
        }
        mean = 0;
        for (int i = 0; i < n_samples; ++i) mean += loss[i] / n_samples;
        if (step % 50 == 0) printf("step %3d  loss %.4f\n", step, mean);
    }
    return mean < 0.5 ? 0 : 1;
}
