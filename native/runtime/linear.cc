#include "runtime/linear.h"

namespace openwork {

LinearLayer::LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue)
    : weights_(std::move(weights)), scale_(epilogue.scale), bias_(epilogue.bias), inverse_scale_(epilogue.inverse_scale) {
  const int32_t shift = weights_->table().activation_offset - epilogue.x_zero_point;
  for (const int32_t sum : weights_->column_sums()) offset_.push_back(shift * sum);
  scale_.resize(weights_->channels());
  bias_.resize(weights_->channels());
  inverse_scale_.resize(weights_->channels());
  epilogue_ = {nullptr, nullptr, nullptr, epilogue.activation, epilogue.quantized, nullptr, epilogue.y_zero_point};
}

LinearPartition LinearLayer::partition(int64_t rows, int threads) const {
  return partition_linear(rows, weights_->k(), weights_->groups(), weights_->bytes() / weights_->groups(), threads);
}

GemmArgs LinearLayer::args(const uint8_t* x, const float* residual, void* y) const {
  GemmArgs a{x, weights_->k(), weights_->view(), weights_->n(), epilogue_, residual, weights_->n(), y, weights_->n()};
  a.epilogue.offset = offset_.data();
  a.epilogue.scale = scale_.data();
  a.epilogue.bias = bias_.data();
  a.epilogue.inverse_scale = inverse_scale_.data();
  return a;
}

void LinearLayer::run(const GemmArgs& args, const Block& block) const {
  weights_->table().gemm[static_cast<int>(weights_->form())](args, block);
}

}  // namespace openwork
