"""Classes of torch.nn, and the names that state must not hide. Data only.

Written by `tools/make_allowlist.py` from torch 2.13; do not edit.
"""

# A class, and what the state of its instances has beyond that of every module.
CLASSES_TEXT = """
modules.activation.CELU alpha inplace
modules.activation.ELU alpha inplace
modules.activation.GELU approximate
modules.activation.GLU dim
modules.activation.Hardshrink lambd
modules.activation.Hardsigmoid inplace
modules.activation.Hardswish inplace
modules.activation.Hardtanh inplace max_val min_val
modules.activation.LeakyReLU inplace negative_slope
modules.activation.LogSigmoid
modules.activation.LogSoftmax dim
modules.activation.Mish inplace
modules.activation.MultiheadAttention _qkv_same_embed_dim add_zero_attn batch_first bias_k
  bias_v dropout embed_dim head_dim kdim num_heads vdim
modules.activation.PReLU init num_parameters
modules.activation.RReLU inplace lower upper
modules.activation.ReLU inplace
modules.activation.ReLU6 inplace max_val min_val
modules.activation.SELU inplace
modules.activation.SiLU inplace
modules.activation.Sigmoid
modules.activation.Softmax dim
modules.activation.Softmax2d
modules.activation.Softmin dim
modules.activation.Softplus beta threshold
modules.activation.Softshrink lambd
modules.activation.Softsign
modules.activation.Tanh
modules.activation.Tanhshrink
modules.activation.Threshold inplace threshold value
modules.adaptive.AdaptiveLogSoftmaxWithLoss cutoffs div_value head_bias head_size in_features
  n_classes n_clusters shortlist_size
modules.batchnorm.BatchNorm1d affine eps momentum num_features track_running_stats
modules.batchnorm.BatchNorm2d affine eps momentum num_features track_running_stats
modules.batchnorm.BatchNorm3d affine eps momentum num_features track_running_stats
modules.batchnorm.SyncBatchNorm affine eps momentum num_features process_group
  track_running_stats
modules.channelshuffle.ChannelShuffle groups
modules.container.ModuleDict
modules.container.ModuleList
modules.container.ParameterDict _keys
modules.container.ParameterList _size
modules.container.Sequential
modules.conv.Conv1d _reversed_padding_repeated_twice dilation groups in_channels kernel_size
  out_channels output_padding padding padding_mode stride transposed
modules.conv.Conv2d _reversed_padding_repeated_twice dilation groups in_channels kernel_size
  out_channels output_padding padding padding_mode stride transposed
modules.conv.Conv3d _reversed_padding_repeated_twice dilation groups in_channels kernel_size
  out_channels output_padding padding padding_mode stride transposed
modules.conv.ConvTranspose1d _reversed_padding_repeated_twice dilation groups in_channels
  kernel_size out_channels output_padding padding padding_mode stride transposed
modules.conv.ConvTranspose2d _reversed_padding_repeated_twice dilation groups in_channels
  kernel_size out_channels output_padding padding padding_mode stride transposed
modules.conv.ConvTranspose3d _reversed_padding_repeated_twice dilation groups in_channels
  kernel_size out_channels output_padding padding padding_mode stride transposed
modules.distance.CosineSimilarity dim eps
modules.distance.PairwiseDistance eps keepdim norm
modules.dropout.AlphaDropout inplace p
modules.dropout.Dropout inplace p
modules.dropout.Dropout1d inplace p
modules.dropout.Dropout2d inplace p
modules.dropout.Dropout3d inplace p
modules.dropout.FeatureAlphaDropout inplace p
modules.flatten.Flatten end_dim start_dim
modules.flatten.Unflatten dim unflattened_size
modules.fold.Fold dilation kernel_size output_size padding stride
modules.fold.Unfold dilation kernel_size padding stride
modules.instancenorm.InstanceNorm1d affine eps momentum num_features track_running_stats
modules.instancenorm.InstanceNorm2d affine eps momentum num_features track_running_stats
modules.instancenorm.InstanceNorm3d affine eps momentum num_features track_running_stats
modules.linear.Bilinear in1_features in2_features out_features
modules.linear.Identity
modules.linear.Linear in_features out_features
modules.linear.NonDynamicallyQuantizableLinear in_features out_features
modules.loss.BCELoss reduction
modules.loss.BCEWithLogitsLoss reduction
modules.loss.CTCLoss blank reduction zero_infinity
modules.loss.CosineEmbeddingLoss margin reduction
modules.loss.CrossEntropyLoss ignore_index label_smoothing reduction
modules.loss.GaussianNLLLoss eps full reduction
modules.loss.HingeEmbeddingLoss margin reduction
modules.loss.HuberLoss delta reduction
modules.loss.KLDivLoss log_target reduction
modules.loss.L1Loss reduction
modules.loss.LinearCrossEntropyLoss ignore_index label_smoothing num_classes options
  out_features reduction
modules.loss.MSELoss reduction
modules.loss.MarginRankingLoss margin reduction
modules.loss.MultiLabelMarginLoss reduction
modules.loss.MultiLabelSoftMarginLoss reduction
modules.loss.MultiMarginLoss margin p reduction
modules.loss.NLLLoss ignore_index reduction
modules.loss.PoissonNLLLoss eps full log_input reduction
modules.loss.SmoothL1Loss beta reduction
modules.loss.SoftMarginLoss reduction
modules.loss.TripletMarginLoss eps margin p reduction swap
modules.loss.TripletMarginWithDistanceLoss margin reduction swap
modules.module.Module
modules.normalization.CrossMapLRN2d alpha beta k size
modules.normalization.GroupNorm affine eps num_channels num_groups
modules.normalization.LayerNorm elementwise_affine eps normalized_shape
modules.normalization.LocalResponseNorm alpha beta k size
modules.normalization.RMSNorm elementwise_affine eps normalized_shape
modules.padding.CircularPad1d padding
modules.padding.CircularPad2d padding
modules.padding.CircularPad3d padding
modules.padding.ConstantPad1d padding value
modules.padding.ConstantPad2d padding value
modules.padding.ConstantPad3d padding value
modules.padding.ReflectionPad1d padding
modules.padding.ReflectionPad2d padding
modules.padding.ReflectionPad3d padding
modules.padding.ReplicationPad1d padding
modules.padding.ReplicationPad2d padding
modules.padding.ReplicationPad3d padding
modules.padding.ZeroPad1d padding value
modules.padding.ZeroPad2d padding value
modules.padding.ZeroPad3d padding value
modules.pixelshuffle.PixelShuffle upscale_factor
modules.pixelshuffle.PixelUnshuffle downscale_factor
modules.pooling.AdaptiveAvgPool1d output_size
modules.pooling.AdaptiveAvgPool2d output_size
modules.pooling.AdaptiveAvgPool3d output_size
modules.pooling.AdaptiveMaxPool1d output_size return_indices
modules.pooling.AdaptiveMaxPool2d output_size return_indices
modules.pooling.AdaptiveMaxPool3d output_size return_indices
modules.pooling.AvgPool1d ceil_mode count_include_pad kernel_size padding stride
modules.pooling.AvgPool2d ceil_mode count_include_pad divisor_override kernel_size padding
  stride
modules.pooling.AvgPool3d ceil_mode count_include_pad divisor_override kernel_size padding
  stride
modules.pooling.FractionalMaxPool2d kernel_size output_ratio output_size return_indices
modules.pooling.FractionalMaxPool3d kernel_size output_ratio output_size return_indices
modules.pooling.LPPool1d ceil_mode kernel_size norm_type stride
modules.pooling.LPPool2d ceil_mode kernel_size norm_type stride
modules.pooling.LPPool3d ceil_mode kernel_size norm_type stride
modules.pooling.MaxPool1d ceil_mode dilation kernel_size padding return_indices stride
modules.pooling.MaxPool2d ceil_mode dilation kernel_size padding return_indices stride
modules.pooling.MaxPool3d ceil_mode dilation kernel_size padding return_indices stride
modules.pooling.MaxUnpool1d kernel_size padding stride
modules.pooling.MaxUnpool2d kernel_size padding stride
modules.pooling.MaxUnpool3d kernel_size padding stride
modules.rnn.GRU _all_weights _flat_weights _flat_weights_names batch_first bias bidirectional
  dropout hidden_size input_size mode num_layers proj_size
modules.rnn.GRUCell bias hidden_size input_size
modules.rnn.LSTM _all_weights _flat_weights _flat_weights_names batch_first bias bidirectional
  dropout hidden_size input_size mode num_layers proj_size
modules.rnn.LSTMCell bias hidden_size input_size
modules.rnn.RNN _all_weights _flat_weights _flat_weights_names batch_first bias bidirectional
  dropout hidden_size input_size mode nonlinearity num_layers proj_size
modules.rnn.RNNBase _all_weights _flat_weights _flat_weights_names batch_first bias
  bidirectional dropout hidden_size input_size mode num_layers proj_size
modules.rnn.RNNCell bias hidden_size input_size nonlinearity
modules.rnn.RNNCellBase bias hidden_size input_size
modules.sparse.Embedding embedding_dim max_norm norm_type num_embeddings padding_idx
  scale_grad_by_freq sparse
modules.sparse.EmbeddingBag embedding_dim include_last_offset max_norm mode norm_type
  num_embeddings padding_idx scale_grad_by_freq sparse
modules.transformer.Transformer batch_first d_model nhead
modules.transformer.TransformerDecoder norm num_layers
modules.transformer.TransformerDecoderLayer activation norm_first
modules.transformer.TransformerEncoder enable_nested_tensor mask_check norm num_layers
  use_nested_tensor
modules.transformer.TransformerEncoderLayer activation activation_relu_or_gelu norm_first
modules.upsampling.Upsample align_corners mode name recompute_scale_factor scale_factor size
modules.upsampling.UpsamplingBilinear2d align_corners mode name recompute_scale_factor
  scale_factor size
modules.upsampling.UpsamplingNearest2d align_corners mode name recompute_scale_factor
  scale_factor size
parallel.data_parallel.DataParallel device_ids
"""

# What is an attribute of a class of torch.nn, dunders left out (they are refused as a class).
NAMES_TEXT = """
T_destination _apply _apply_instance_norm _call_impl _check_input_dim
_check_non_zero_input_channels _compiled_call_impl _conv_forward _ff_block
_fill_padding_idx_with_zero _get_abs_string_index _get_backward_hooks _get_backward_pre_hooks
_get_full_log_prob _get_item_by_idx _get_name _get_no_batch_dim _handle_no_batch_input
_init_flat_weights _is_protocol _key_to_attr _load_from_state_dict
_maybe_warn_non_full_backward_hook _mha_block _named_members _output_padding
_register_load_state_dict_pre_hook _register_state_dict_hook _replicate_for_data_parallel
_require_tuple_int _reset_parameters _sa_block _save_to_state_dict _slow_forward
_update_flat_weights _version _weights_have_changed _wrapped_call_impl add_module all_weights
append apply bfloat16 buffers call_super_init check_forward_args check_hidden_size check_input
children clear compile convert_sync_batchnorm copy cpu cuda double dump_patches eval extend
extra_repr flatten_parameters float forward from_pretrained fromkeys gather
generate_square_subsequent_mask get get_buffer get_expected_cell_size get_expected_hidden_size
get_extra_state get_parameter get_submodule half insert ipu items keys load_state_dict log_prob
merge_masks modules mtia named_buffers named_children named_modules named_parameters
parallel_apply parameters permute_hidden pop popitem predict register_backward_hook
register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook
register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook replicate requires_grad_
reset_parameters reset_running_stats scatter set_extra_state set_submodule setdefault
share_memory state_dict to to_empty train type update values xpu zero_grad
"""
