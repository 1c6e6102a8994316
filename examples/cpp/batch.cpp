// Loss and gradient of a batch in C++20: spans of samples, threads that join themselves, errors as exceptions.
//
//     c++ -std=c++20 -O2 batch.cpp $(python -m softxent config --cflags --libs) -pthread -o batch && ./batch
#include <softxent.h>

#include <cstdint>
#include <iostream>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

struct Batch {
    std::span<const float> logits; // n_classes for each label, side by side
    std::span<const std::int32_t> labels;
    std::ptrdiff_t n_classes;
};

// Losses into `loss`, their gradient times `scale` into `grad`.
void cross_entropy(const Batch &batch, double scale, std::span<float> loss, std::span<float> grad)
{
    softxent_block b{};
    b.size = sizeof b;
    b.n_samples = std::ssize(batch.labels);
    b.n_classes = batch.n_classes;
    b.logits = batch.logits.data();
    b.out = grad.data();
    b.logits_sample_stride = b.out_sample_stride = batch.n_classes;
    b.logits_class_stride = b.out_class_stride = 1;
    b.labels = batch.labels.data();
    b.labels_stride = 1;
    b.label_type = SOFTXENT_INT32;
    b.loss = loss.data();
    b.loss_stride = 1;
    b.grad_scale = scale;
    std::ptrdiff_t bad = 0;
    if (const int status = softxent_cross_entropy_f32(&b, &bad)) throw std::invalid_argument(softxent_strerror(status));
}

int main()
{
    constexpr std::size_t n_samples = 1024, n_classes = 1000, n_threads = 2;
    std::mt19937 random(1);
    std::vector<float> logits(n_samples * n_classes), grad(logits.size()), loss(n_samples);
    std::vector<std::int32_t> labels(n_samples);
    for (auto &z : logits) z = std::normal_distribution<float>()(random);
    for (auto &y : labels) y = std::uniform_int_distribution<std::int32_t>(0, n_classes - 1)(random);
    {
        std::vector<std::jthread> threads;
        threads.reserve(n_threads);
        for (std::size_t t = 0; t < n_threads; ++t)
            threads.emplace_back([&, begin = t * n_samples / n_threads, end = (t + 1) * n_samples / n_threads] {
                const std::size_t n = end - begin, first = begin * n_classes, entries = n * n_classes;
                const Batch batch{std::span(logits).subspan(first, entries), std::span(labels).subspan(begin, n),
                                  n_classes};
                cross_entropy(batch, 1.0 / n_samples, std::span(loss).subspan(begin, n),
                              std::span(grad).subspan(first, entries));
            });
    }
    std::cout << "mean loss " << std::accumulate(loss.begin(), loss.end(), 0.0) / n_samples << '\n';
    try {
        labels[0] = n_classes; // no class
        cross_entropy({logits, labels, n_classes}, 1, loss, grad);
    } catch (const std::invalid_argument &error) {
        std::cout << "refused: " << error.what() << '\n';
        return 0;
    }
    return 1;
}
