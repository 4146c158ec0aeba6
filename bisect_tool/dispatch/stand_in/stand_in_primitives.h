// The ops, with all that their parameters were ever called. Our own.
#pragma once

#include "stand_in_arrays.h"

namespace mlx::core {

class Primitive {
 public:
  Stream& stream() {
    return stream_;
  }
  const char* name() const {
    return "stand_in";
  }

 private:
  Stream stream_;
};

// Was a string before it was an enumeration: it is both.
class QuantizationMode {
 public:
  enum Value { Affine, Mxfp4, Mxfp8, Nvfp4 };
  QuantizationMode(Value value = Affine) : value_(value) {}
  operator Value() const {
    return value_;
  }
  operator std::string() const {
    const char* names[] = {"affine", "mxfp4", "mxfp8", "nvfp4"};
    return names[value_];
  }

 private:
  Value value_;
};
inline bool operator==(const QuantizationMode& mode, const char* name) {
  return static_cast<std::string>(mode) == name;
}
inline bool operator!=(const QuantizationMode& mode, const char* name) {
  return !(mode == name);
}
inline std::string operator+(const QuantizationMode& mode, const std::string& rest) {
  return static_cast<std::string>(mode) + rest;
}
inline std::string quantization_mode_to_string(QuantizationMode mode) {
  return mode;
}

// All that the op's parameters were ever called.
class Quantized : public Primitive {
 public:
  int groups_ = 64, width_ = 4; // in the first two weeks
  int group_size_ = 64, bits_ = 4;
  bool transpose_ = true;
  QuantizationMode mode_;
};

class QuantizedMatmul : public Quantized {
 public:
  void eval_gpu(const std::vector<array>& inputs, array& out);
};

#define STAND_IN_OP(NAME)                                            \
  class NAME : public Quantized {                                    \
   public:                                                           \
    void eval_gpu(const std::vector<array>& inputs, array& out);     \
    void eval_gpu(const std::vector<array>&, std::vector<array>&);   \
    bool left_sorted_ = false, right_sorted_ = false, dequantize_ = false, to_fp8_ = false; \
  };
STAND_IN_OP(GatherQMM)
STAND_IN_OP(BlockSparseQMM)
STAND_IN_OP(QQMatmul)
STAND_IN_OP(GatherQQMM)
namespace fast {
STAND_IN_OP(AffineQuantize)
STAND_IN_OP(Quantize)
STAND_IN_OP(ConvertFP8)
} // namespace fast
#undef STAND_IN_OP

} // namespace mlx::core
