#include "llama-protected-rows.h"

#include "ggml-backend.h"
#include "llama-graph.h"
#include "llama-impl.h"
#include "llama-model-loader.h"

#include <algorithm>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>

// which row of the residual each token has, and whether it has one
class llm_graph_input_protected_rows : public llm_graph_input_i {
public:
    llm_graph_input_protected_rows(const std::vector<int32_t> & numbers) : numbers(numbers) {}

    void set_input(const llama_ubatch * ubatch) override {
        if (!ubatch->token) {
            return;
        }
        std::vector<int32_t> i(ubatch->n_tokens);
        std::vector<float>   m(ubatch->n_tokens);
        for (uint32_t t = 0; t < ubatch->n_tokens; ++t) {
            const auto it = std::lower_bound(numbers.begin(), numbers.end(), ubatch->token[t]);
            const bool is_protected = it != numbers.end() && *it == ubatch->token[t];
            i[t] = is_protected ? (int32_t) (it - numbers.begin()) : 0;
            m[t] = is_protected ? 1.0f : 0.0f;
        }
        ggml_backend_tensor_set(ids,  i.data(), 0, ggml_nbytes(ids));
        ggml_backend_tensor_set(mask, m.data(), 0, ggml_nbytes(mask));
    }

    bool can_reuse(const llm_graph_params & params) override {
        return !params.ubatch.token || ids->ne[0] == params.ubatch.n_tokens;
    }

    ggml_tensor * ids  = nullptr; // I32 [n_tokens]
    ggml_tensor * mask = nullptr; // F32 [1, n_tokens]

private:
    const std::vector<int32_t> & numbers;
};

// where the residual of a matrix goes: not among repacked rows, which nobody can look up
static ggml_backend_buffer_type_t plain_buffer_type(ggml_backend_buffer_type_t buft) {
    if (ggml_backend_buft_is_host(buft)) {
        return ggml_backend_cpu_buffer_type();
    }
    ggml_backend_dev_t dev = ggml_backend_buft_get_device(buft);
    return dev ? ggml_backend_dev_buffer_type(dev) : buft;
}

static bool holds_weights(ggml_type type) {
    return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr;
}

static ggml_context * context_for(llama_model_loader & ml, ggml_backend_buffer_type_t buft) {
    const llama_model_loader::ctx_key key { buft, /*.lazy =*/ false };
    if (ml.ctx_map.find(key) == ml.ctx_map.end()) {
        ggml_init_params params = {
            /*.mem_size   =*/ ggml_tensor_overhead()*ml.n_tensors,
            /*.mem_buffer =*/ NULL,
            /*.no_alloc   =*/ true,
        };
        ml.ctx_map.emplace(key, ggml_init(params));
    }
    return ml.ctx_map.at(key).get();
}

void llama_protected_rows::create(llama_model_loader & ml) {
    std::vector<std::pair<ggml_tensor *, ggml_backend_buffer_type_t>> matrices;
    for (const auto & [key, ctx] : ml.ctx_map) {
        for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
            if (ml.get_weight((std::string(t->name) + ".rows").c_str())) {
                matrices.emplace_back(t, key.buft);
            }
        }
    }

    std::set<std::string> counted; // a head that is tied to its embedding may be there twice
    for (const auto & [w, buft] : matrices) {
        const ggml_tensor * rows     = ml.get_tensor_meta((std::string(w->name) + ".rows").c_str());
        const ggml_tensor * residual = ml.get_tensor_meta((std::string(w->name) + ".residual").c_str());

        if (!residual || ggml_n_dims(w) != 2 || rows->type != GGML_TYPE_I32 || ggml_n_dims(rows) != 1 ||
            rows->ne[0] == 0 || !holds_weights(residual->type) || ggml_n_dims(residual) > 2 ||
            residual->ne[0] != w->ne[0] || residual->ne[1] != rows->ne[0]) {
            throw std::runtime_error(format("protected rows of '%s': .rows and .residual do not fit the matrix", w->name));
        }

        ggml_context * ctx = context_for(ml, plain_buffer_type(buft));
        const auto made = [&](const ggml_tensor * meta) {
            if (ggml_tensor * t = ggml_get_tensor(ctx, meta->name)) {
                return t;
            }
            ggml_tensor * t = ggml_dup_tensor(ctx, meta);
            ggml_set_name(t, meta->name);
            if (counted.insert(meta->name).second) {
                ml.n_created++;
            } else {
                ml.size_data += ggml_nbytes(meta);
            }
            return t;
        };
        entry & e = entries[w];
        e.rows     = made(rows);
        e.residual = made(residual);
    }
}

void llama_protected_rows::read() {
    for (auto & [w, e] : entries) {
        e.numbers.resize(e.rows->ne[0]);
        ggml_backend_tensor_get(e.rows, e.numbers.data(), 0, ggml_nbytes(e.rows));

        for (size_t i = 0; i < e.numbers.size(); ++i) {
            if (e.numbers[i] <= (i == 0 ? -1 : e.numbers[i - 1]) || e.numbers[i] >= w->ne[1]) {
                throw std::runtime_error(format("protected rows of '%s': .rows does not hold ascending numbers of rows", w->name));
            }
        }
    }
}

ggml_tensor * llama_protected_rows::add_to_product(
        ggml_context * ctx, const ggml_tensor * w, ggml_tensor * x, ggml_tensor * y) const {
    const auto it = entries.find(w);
    if (it == entries.end() || ggml_is_empty(y)) { // all but the last ubatch of a long prompt give no outputs
        return y;
    }
    const entry & e = it->second;

    // outputs are rows of one number here, in as many matrices as there are columns
    const int64_t k = e.rows->ne[0];
    const int64_t n = ggml_nelements(y)/y->ne[0];

    // every column needs its row numbers, and CUDA repeats nothing but floats, which hold integers up to 2^24
    ggml_tensor * numbers = e.rows;
    if (n != 1) {
        GGML_ASSERT(y->ne[0] <= 1 << 24);
        numbers = ggml_cast(ctx, numbers, GGML_TYPE_F32);
        numbers = ggml_cast(ctx, ggml_repeat_4d(ctx, numbers, k, n, 1, 1), GGML_TYPE_I32);
    }

    ggml_tensor * outputs = ggml_reshape_3d(ctx, y, 1, y->ne[0], n);
    ggml_tensor * added   = ggml_reshape_3d(ctx, ggml_mul_mat(ctx, e.residual, x), 1, k, n);
    added = ggml_add(ctx, ggml_get_rows(ctx, outputs, numbers), added);

    return ggml_reshape(ctx, ggml_set_rows(ctx, outputs, added, numbers), y);
}

ggml_tensor * llama_protected_rows::add_to_lookup(
        ggml_context * ctx, llm_graph_result * res, const ggml_tensor * w, ggml_tensor * cur) const {
    const auto it = entries.find(w);
    if (it == entries.end()) {
        return cur;
    }
    const entry & e = it->second;

    auto inp = std::make_unique<llm_graph_input_protected_rows>(e.numbers);

    inp->ids = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, cur->ne[1]);
    ggml_set_input(inp->ids);
    inp->mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 1, cur->ne[1]);
    ggml_set_input(inp->mask);

    cur = ggml_add(ctx, cur, ggml_mul(ctx, ggml_get_rows(ctx, e.residual, inp->ids), inp->mask));

    res->add_input(std::move(inp));

    return cur;
}

void llama_protected_rows::check(ggml_cgraph * gf) const {
    if (entries.empty()) {
        return;
    }
    const int n_nodes = ggml_graph_n_nodes(gf);

    for (int i = 0; i < n_nodes; ++i) {
        const ggml_tensor * node = ggml_graph_node(gf, i);

        for (const ggml_tensor * src : node->src) {
            const auto it = entries.find(src);
            if (src == nullptr || it == entries.end() || ggml_is_empty(node)) {
                continue;
            }
            bool is_restored = false;
            for (int j = 0; j < n_nodes && !is_restored; ++j) {
                const ggml_tensor * other = ggml_graph_node(gf, j);
                // a lookup of the residual has row numbers of its own
                is_restored = other->op == node->op && other->src[0] == it->second.residual &&
                    (node->op == GGML_OP_GET_ROWS || (node->op == GGML_OP_MUL_MAT && other->src[1] == node->src[1]));
            }
            if (!is_restored) {
                throw std::runtime_error(format("protected rows of '%s': this architecture uses the matrix without them", src->name));
            }
        }
    }
}
