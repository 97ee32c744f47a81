// The buffer type of repacked TCQ tensors. Products of them go the way of all TCQ products (tcq-matmul.c), which asks
// ggml_tcq_is_repacked; no other operation may read them.

#include "tcq-repack.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "tcq-kernels.h"
#include "tcq-matmul.h"
#include "traits.h"

static const tcq_format * tcq_repackable(const struct ggml_tensor * tensor) {
    const tcq_format * f = tcq_get_format(tensor->type);
    return f != nullptr && f->block_size == QK_TCQ && tensor->ne[1] % TCQ_GROUP == 0 && ggml_is_contiguous(tensor) &&
           tcq_kernels_in_use()->dot_groups[f->rate - 1] != nullptr ? f : nullptr;
}

static void tcq_buffer_set_tensor(ggml_backend_buffer_t, struct ggml_tensor * tensor, const void * data, size_t offset,
                                  size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    const tcq_format * f = tcq_repackable(tensor);
    GGML_ASSERT(f != nullptr);
    tcq_repack(f, ggml_nrows(tensor), tensor->ne[0]/QK_TCQ, (const uint8_t *) data, (uint8_t *) tensor->data);
}

static void tcq_buffer_get_tensor(ggml_backend_buffer_t, const struct ggml_tensor * tensor, void *, size_t, size_t) {
    GGML_ABORT("%s is repacked and cannot be read: load the model without repacking (--no-repack)", tensor->name);
}

static const char * tcq_buffer_type_name(ggml_backend_buffer_type_t) {
    return "CPU_TCQ_REPACK";
}

static ggml_backend_buffer_t tcq_buffer_type_alloc(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer != nullptr) {
        buffer->buft             = buft;
        buffer->iface.set_tensor = tcq_buffer_set_tensor;
        buffer->iface.get_tensor = tcq_buffer_get_tensor;
        buffer->iface.cpy_tensor = nullptr;
    }
    return buffer;
}

static size_t tcq_buffer_type_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

static size_t tcq_buffer_type_alloc_size(ggml_backend_buffer_type_t, const struct ggml_tensor * tensor) {
    const tcq_format * f = tcq_repackable(tensor);
    return f == nullptr ? ggml_nbytes(tensor) : ggml_nelements(tensor)/(TCQ_GROUP*QK_TCQ)*tcq_group_block_size(f->rate);
}

namespace ggml::cpu::tcq {
class extra_buffer_type : ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const struct ggml_tensor * op) override {
        const struct ggml_tensor * x = op->src[0], * y = op->src[1];
        const bool product = (op->op == GGML_OP_MUL_MAT    && ggml_n_dims(x) == 2) ||
                             (op->op == GGML_OP_MUL_MAT_ID && ggml_n_dims(x) == 3 && x->ne[2] <= TCQ_MAX_EXPERTS);
        // a view's rows are not where its address says
        return product && ggml_tcq_is_repacked(x) && x->view_src == nullptr && tcq_repackable(x) != nullptr &&
               y->type == GGML_TYPE_F32 && y->nb[0] == sizeof(float) &&
               (y->buffer == nullptr || ggml_backend_buft_is_host(y->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const struct ggml_tensor *) override {
        return nullptr;
    }
};
} // namespace ggml::cpu::tcq

ggml_backend_buffer_type_t ggml_backend_cpu_tcq_buffer_type(void) {
    static struct ggml_backend_buffer_type type = {
        /* .iface    = */ {
            /* .get_name       = */ tcq_buffer_type_name,
            /* .alloc_buffer   = */ tcq_buffer_type_alloc,
            /* .get_alignment  = */ tcq_buffer_type_alignment,
            /* .get_max_size   = */ nullptr, // SIZE_MAX
            /* .get_alloc_size = */ tcq_buffer_type_alloc_size,
            /* .is_host        = */ nullptr,
        },
        /* .device  = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context = */ new ggml::cpu::tcq::extra_buffer_type(),
    };
    return tcq_kernels_in_use()->dot_groups[0] != nullptr ? &type : nullptr;
}

bool ggml_tcq_is_repacked(const struct ggml_tensor * tensor) {
    return tensor->buffer != nullptr && tensor->buffer->buft->iface.get_name == tcq_buffer_type_name;
}
