// Does the GPU's encoder write the CPU's bytes, and how fast is it? For every type: rows with outliers, of a narrow Gaussian,
// of scales from tiny to huge, and mostly of zeros; without importance, with it, with it from the GPU's memory, and with error
// feedback. `encoder ROWS` compares that many rows of each; `encoder` then takes the time of 8192 x 4096 Gaussian weights.
//
// Links ggml, ggml-base and ggml-cuda. Exit status 0: the same bytes; 1: others.

#include "ggml.h"
#include "ggml-tcq.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

extern "C" {
bool ggml_backend_cuda_quantize_tcq(
    int device, enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row, const float * importance);
bool ggml_backend_cuda_quantize_tcq_feedback(
    int device, enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row, const tcq_feedback * feedback);
}

static const ggml_type types[] = {
#define TCQ_CASE(name, NAME, qk) GGML_TYPE_##NAME,
    TCQ_FOR_EACH_TYPE(TCQ_CASE)
#undef TCQ_CASE
};

static std::mt19937 random_bits(1);

static float normal() {
    static std::normal_distribution<float> distribution;
    return distribution(random_bits);
}

template <typename T>
struct device_array {
    T * data = nullptr;
    explicit device_array(size_t n) { cudaMalloc(&data, n*sizeof(T)); }
    device_array(const std::vector<T> & from) : device_array(from.size()) {
        cudaMemcpy(data, from.data(), from.size()*sizeof(T), cudaMemcpyHostToDevice);
    }
    ~device_array() { cudaFree(data); }
    device_array(const device_array &) = delete;
};

static std::vector<float> make_rows(int kind, int64_t n, int64_t k) {
    std::student_t_distribution<float> heavy_tails(3.0f);
    std::vector<float> x(n*k);
    for (int64_t i = 0; i < n; ++i) {
        const float scale = std::pow(10.0f, (int) (random_bits() % 12) - 8);
        for (int64_t j = 0; j < k; ++j) {
            x[i*k + j] =
                kind == 0 ? heavy_tails(random_bits)       :
                kind == 1 ? 0.02f*normal()                 :
                kind == 2 ? scale*heavy_tails(random_bits) :
                i > 0 && random_bits() % 32 == 0 ? 20.0f*normal() : 0.0f;
        }
    }
    return x;
}

static std::vector<float> make_importance(int64_t k) {
    std::gamma_distribution<float> gamma(0.3f, 1.0f);
    std::vector<float> w(k);
    for (float & value : w) {
        value = gamma(random_bits);
    }
    return w;
}

// not of any Hessian, but the encoders have to make the same of any tables
struct feedback_tables {
    static constexpr int section = 64, look_ahead = 64;
    std::vector<float> block_weights, section_weights, propagation;
    tcq_feedback       feedback;

    explicit feedback_tables(int64_t k) : block_weights(k), section_weights(k/section*(section + look_ahead)), propagation(k*k) {
        for (std::vector<float> * weights : { &block_weights, &section_weights }) {
            for (float & value : *weights) {
                value = 0.5f + std::fabs(normal());
            }
        }
        for (int64_t row = 0; row < k; ++row) {
            for (int64_t column = (row/section + 1)*section; column < k; ++column) {
                propagation[row*k + column] = 0.02f*normal();
            }
        }
        feedback = { block_weights.data(), section_weights.data(), propagation.data(), section, look_ahead };
    }
};

static int compare(int64_t n) {
    int n_cases = 0, n_wrong = 0;
    for (const ggml_type type : types) {
        const tcq_format * f = tcq_get_format(type);
        const int64_t k = 3*f->block_size;
        const std::vector<float> w = make_importance(k);
        const feedback_tables tables(k);
        for (int kind = 0; kind < 4; ++kind) {
            const std::vector<float>  x = make_rows(kind, n, k);
            const device_array<float> on_device(x);
            std::vector<uint8_t> plain(n*3*f->type_size), weighted(plain.size()), fed_back(plain.size());
            quantize_tcq         (type, x.data(), plain   .data(), n, k, nullptr);
            quantize_tcq         (type, x.data(), weighted.data(), n, k, w.data());
            quantize_tcq_feedback(type, x.data(), fed_back.data(), n, k, &tables.feedback);

            const auto check = [&](const char * what, const std::vector<uint8_t> & cpu, const std::function<bool(void *)> & encode) {
                std::vector<uint8_t> gpu(cpu.size(), 0xaa);
                ++n_cases;
                if (!encode(gpu.data()) || gpu != cpu) {
                    ++n_wrong;
                    printf("%s, rows of kind %d, %s: other bytes\n", ggml_type_name(type), kind, what);
                }
            };
            check("plain", plain, [&](void * y) {
                return ggml_backend_cuda_quantize_tcq(0, type, x.data(), y, n, k, nullptr);
            });
            check("importance", weighted, [&](void * y) {
                return ggml_backend_cuda_quantize_tcq(0, type, x.data(), y, n, k, w.data());
            });
            check("from the GPU's memory", weighted, [&](void * y) {
                return ggml_backend_cuda_quantize_tcq(0, type, on_device.data, y, n, k, w.data());
            });
            check("feedback", fed_back, [&](void * y) {
                return ggml_backend_cuda_quantize_tcq_feedback(0, type, x.data(), y, n, k, &tables.feedback);
            });
        }
    }
    printf("%d of %d cases have other bytes than the CPU's\n", n_wrong, n_cases);
    return n_wrong != 0;
}

// millions of weights per second, the best of three
static double get_rate(int64_t n_weights, const std::function<void()> & encode) {
    double best = 0.0;
    for (int i = 0; i < 3; ++i) {
        const auto start = std::chrono::steady_clock::now();
        encode();
        best = std::max(best, 1e-6*n_weights/std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

static void time_encoders() {
    const int64_t n = 8192, n_feedback = 1024, n_cpu = 64, k = 4096;
    std::vector<float> x(n*k);
    for (float & value : x) {
        value = normal();
    }
    const std::vector<float> w = make_importance(k);
    const feedback_tables tables(k);
    std::vector<uint8_t> y(n*k);
    const device_array<float>   x_on_device(x);
    const device_array<uint8_t> y_on_device(y.size());

    printf("M weights/s: host memory, device memory, with feedback (%d rows), one core of the CPU\n", (int) n_feedback);
    for (const ggml_type type : types) {
        const double host = get_rate(n*k, [&] {
            ggml_backend_cuda_quantize_tcq(0, type, x.data(), y.data(), n, k, w.data());
        });
        const double device = get_rate(n*k, [&] {
            ggml_backend_cuda_quantize_tcq(0, type, x_on_device.data, y_on_device.data, n, k, w.data());
        });
        const double feedback = get_rate(n_feedback*k, [&] {
            ggml_backend_cuda_quantize_tcq_feedback(0, type, x.data(), y.data(), n_feedback, k, &tables.feedback);
        });
        const double cpu = get_rate(n_cpu*k, [&] { quantize_tcq(type, x.data(), y.data(), n_cpu, k, w.data()); });
        printf("%-8s %7.1f %7.1f %7.1f %7.2f\n", ggml_type_name(type), host, device, feedback, cpu);
    }
}

int main(int argc, char ** argv) {
    if (compare(argc > 1 ? atoi(argv[1]) : 16) != 0) {
        return 1;
    }
    if (argc == 1) {
        time_encoders();
    }
    return 0;
}
