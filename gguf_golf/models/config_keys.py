"""Keys of config.json that do not change what a language model computes; all others are used or named in a note."""

from gguf_golf.models.config import Config

# bookkeeping, training, generation, and what llama.cpp learns by other means
HARMLESS = {
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path",
    "_sliding_window_pattern", "add_bos_token", "add_eos_token", "architectures", "attention_dropout",
    "attn_dropout", "attn_implementation", "attn_pdrop", "auto_map", "bad_words_ids", "begin_suppress_tokens",
    "bos_token_id", "chunk_size", "classifier_dropout", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dropout", "dtype", "early_stopping", "embd_pdrop", "embedding_dropout",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "hidden_dropout", "id2label",
    "initializer_factor", "initializer_range", "is_decoder", "is_llama_config", "keys_to_ignore_at_inference",
    "label2id", "length_penalty", "mamba_chunk_size", "mamba_ssm_cache_dtype", "max_length", "max_new_tokens",
    "min_length", "model_max_length", "model_name", "model_type", "moe_shared_expert_overlap",
    "mtp_layers_block_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_logits_to_keep",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_router_logits",
    "output_scores", "pad_token_id", "prefix", "pretraining_tp", "problem_type", "remove_invalid_values",
    "reorder_and_upcast_attn", "repetition_penalty", "rescale_prenorm_residual", "resid_pdrop", "return_dict",
    "return_dict_in_generate", "rms_norm", "rope_interleaved", "router_aux_loss_coef", "router_jitter_noise",
    "sep_token_id", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
    "time_step_floor", "time_step_max", "time_step_min", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "torchscript", "transformers.js_config", "transformers_version", "typical_p", "unk_token_id",
    "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache", "use_flash_attention", "use_flash_attn",
    "use_mamba_kernels", "vocab_size",
}  # fmt: skip
HARMLESS_VALUES: dict[str, object] = {
    # harmless as long as they have the value that does nothing
    "add_cross_attention": False,
    "attention_bias": False,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "is_causal": True,
    "is_encoder_decoder": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "pruned_heads": {},
    "qk_layernorm": False,
    "residual_in_fp32": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "quantization_config": {},
    "tie_encoder_decoder": False,
}


def unused_keys(config: Config) -> list[str]:
    """Keys of this config.json that nothing has used, that are not null, and that may mean something."""
    return sorted(
        key
        for key, value in config.values.items()
        if value is not None
        and key not in config.used | HARMLESS
        and not (key in HARMLESS_VALUES and value == HARMLESS_VALUES[key])
    )
