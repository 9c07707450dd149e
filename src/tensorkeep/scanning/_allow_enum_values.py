"""Enumerations: `module:Class [values]`, or `&[mask]` for a set of flags. Data only.

Written by `tools/make_allowlist.py` from Python 3.11; do not edit.
"""

ENUMS_TEXT = r"""
accelerate.utils.dataclasses:ComputeEnvironment ["LOCAL_MACHINE", "AMAZON_SAGEMAKER"]
accelerate.utils.dataclasses:CustomDtype ["fp8", "int4", "int2"]
accelerate.utils.dataclasses:DDPCommunicationHookType ["no", "fp16", "bf16", "power_sgd",
  "batched_power_sgd"]
accelerate.utils.dataclasses:DistributedType ["NO", "MULTI_CPU", "MULTI_GPU", "MULTI_NPU",
  "MULTI_MLU", "MULTI_SDAA", "MULTI_MUSA", "MULTI_XPU", "DEEPSPEED", "FSDP", "XLA",
  "MEGATRON_LM", "MULTI_HPU", "MULTI_NEURON"]
accelerate.utils.dataclasses:DynamoBackend ["NO", "EAGER", "AOT_EAGER", "INDUCTOR",
  "AOT_TS_NVFUSER", "NVPRIMS_NVFUSER", "CUDAGRAPHS", "OFI", "FX2TRT", "ONNXRT", "TENSORRT",
  "AOT_TORCHXLA_TRACE_ONCE", "TORCHXLA_TRACE_ONCE", "TVM", "HPU_BACKEND", "NEURON"]
accelerate.utils.dataclasses:FP8BackendType ["NO", "TE", "MSAMP", "AO"]
accelerate.utils.dataclasses:LoggerType ["all", "aim", "tensorboard", "wandb", "trackio",
  "comet_ml", "mlflow", "clearml", "dvclive", "swanlab"]
accelerate.utils.dataclasses:PrecisionType ["no", "fp8", "fp16", "bf16"]
accelerate.utils.dataclasses:RNGType ["torch", "cuda", "mlu", "sdaa", "musa", "npu", "xla",
  "xpu", "hpu", "neuron", "generator"]
accelerate.utils.dataclasses:SageMakerDistributedType ["NO", "DATA_PARALLEL", "MODEL_PARALLEL"]
enum:EnumCheck ["no skipped integer values", "multi-flag aliases may not contain unnamed flags",
  "one name per value"]
enum:FlagBoundary ["strict", "conform", "eject", "keep"]
http:HTTPMethod ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]
http:HTTPStatus [100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301,
  302, 303, 304, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412,
  413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502,
  503, 504, 505, 506, 507, 508, 510, 511]
inspect:_ParameterKind [0, 1, 2, 3, 4]
lightning.pytorch.callbacks.timer:Interval ["step", "epoch"]
lightning.pytorch.trainer.states:RunningStage ["train", "sanity_check", "validate", "test",
  "predict"]
lightning.pytorch.trainer.states:TrainerFn ["fit", "validate", "test", "predict"]
lightning.pytorch.trainer.states:TrainerStatus ["initializing", "running", "finished",
  "interrupted"]
lightning.pytorch.utilities.enums:GradClipAlgorithmType ["value", "norm"]
plistlib:PlistFormat [1, 2]
pstats:SortKey ["calls", "cumulative", "filename", "line", "name", "nfl", "pcalls", "stdname",
  "time"]
re:RegexFlag &[511]
signal:Handlers [0, 1]
signal:Sigmasks [0, 1, 2]
signal:Signals [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
  23, 24, 25, 26, 27, 28, 29, 30, 31, 34, 64]
socket:AddressFamily [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21,
  22, 23, 24, 25, 26, 29, 30, 38, 40, 42]
socket:AddressInfo &[1087]
socket:MsgFlag &[1610672623]
socket:SocketKind [1, 2, 3, 4, 5, 2048, 524288]
ssl:AlertDescription [0, 10, 20, 22, 30, 40, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 70, 71, 80,
  90, 100, 110, 111, 112, 113, 114, 115]
ssl:Options &[4266803408]
ssl:SSLErrorNumber [1, 2, 3, 4, 5, 6, 7, 8, 10]
ssl:TLSVersion [-2, 768, 769, 770, 771, 772, -1]
ssl:VerifyFlags &[557164]
ssl:VerifyMode [0, 1, 2]
ssl:_SSLMethod [2, 3, 4, 5, 16, 17]
ssl:_TLSAlertType [0, 10, 20, 21, 22, 30, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 60,
  70, 71, 80, 86, 90, 100, 109, 110, 111, 112, 113, 114, 115, 116, 120]
ssl:_TLSContentType [20, 21, 22, 23, 256, 257]
ssl:_TLSMessageType [0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 67,
  254, 257]
torch.amp.grad_scaler:OptState [0, 1, 2]
torch.ao.quantization.quant_type:QuantType [0, 1, 2, 3]
torch.distributed.fsdp.api:BackwardPrefetch [1, 2]
torch.distributed.fsdp.api:ShardingStrategy [1, 2, 3, 4, 5]
torch.distributed.fsdp.api:StateDictType [1, 2, 3]
torch.export.dynamic_shapes:_DimHintType [1, 2, 3]
torch.export.graph_signature:InputKind [1, 2, 3, 4, 5, 6]
torch.export.graph_signature:OutputKind [1, 2, 3, 4, 5, 6, 7, 8]
torch.nn.attention.bias:CausalVariant [1, 2]
torch.profiler.profiler:ProfilerAction [0, 1, 2, 3, 4]
transformers.debug_utils:DebugOption ["underflow_overflow", "tpu_metrics_debug"]
transformers.tokenization_utils_base:TruncationStrategy ["only_first", "only_second",
  "longest_first", "do_not_truncate"]
transformers.trainer_utils:FSDPOption ["full_shard", "shard_grad_op", "no_shard",
  "hybrid_shard", "hybrid_shard_zero2", "offload", "auto_wrap"]
transformers.trainer_utils:HPSearchBackend ["optuna", "ray", "wandb"]
transformers.trainer_utils:HubStrategy ["end", "every_save", "checkpoint", "all_checkpoints"]
transformers.trainer_utils:IntervalStrategy ["no", "steps", "epoch"]
transformers.trainer_utils:SaveStrategy ["no", "steps", "epoch", "best"]
transformers.trainer_utils:SchedulerType ["linear", "cosine", "cosine_with_restarts",
  "polynomial", "constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau",
  "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy"]
transformers.training_args:OptimizerNames ["adamw_torch", "adamw_torch_fused",
  "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor", "adamw_anyprecision",
  "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit",
  "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit",
  "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit",
  "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
  "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise",
  "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw",
  "schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw",
  "apollo_adamw_layerwise", "stable_adamw"]
transformers.training_args:ParallelMode ["not_parallel", "not_distributed", "distributed",
  "sagemaker_model_parallel", "sagemaker_data_parallel", "tpu"]
transformers.utils.generic:PaddingStrategy ["longest", "max_length", "do_not_pad"]
transformers.utils.generic:TensorType ["pt", "np", "mlx"]
transformers.utils.quantization_config:AwqBackend ["autoawq", "auto", "auto_trainable",
  "machete", "marlin", "exllama_v2", "exllama_v1", "gemm", "gemm_triton", "gemv", "gemv_fast",
  "torch_awq", "torch_fused_awq"]
transformers.utils.quantization_config:AwqFormat ["gemm", "gemv", "gemv_fast", "llm-awq"]
transformers.utils.quantization_config:ExllamaVersion [1, 2]
transformers.utils.quantization_config:QuantizationMethod ["bitsandbytes", "gptq", "awq",
  "aqlm", "vptq", "quanto", "eetq", "higgs", "hqq", "compressed-tensors", "fbgemm_fp8",
  "torchao", "gguf", "bitnet", "spqr", "fp8", "quark", "fp_quant", "auto-round", "mxfp4",
  "nvfp4", "mxfp8", "metal", "fouroversix", "sinq", "gemma"]
uuid:SafeUUID [0, -1, null]
"""
