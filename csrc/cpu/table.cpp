// One instruction set's kernels, as a table. Compiled once per instruction set like the kernels.
#include "isa.h"

#define FC_STRING_(x) #x
#define FC_STRING(x) FC_STRING_(x)

namespace FASTCODEC_ISA_NS {

using namespace fastcodec;

int64_t conv_packed_size(const Conv&);
void conv_pack(const Conv&, const float*, float*);
int64_t conv_panels(const Conv&);
void conv(const Conv&, int64_t, int64_t, int64_t, int64_t, int64_t);
void prologue(const Prologue&, const float*, int64_t, int64_t, int64_t, int64_t, float*);
void snake_backward_rows(const SnakeBackward&, int64_t, int64_t, double*);
void snake_backward_run(const SnakeBackward&, int64_t, double*);
LstmSizes lstm_sizes(int64_t, bool);
void lstm_pack(const float*, const float*, int64_t, bool, float*);
void lstm_bias(const float*, const float*, int64_t, float*);
void lstm_round(const float*, int64_t, int64_t, bool, float*);
void lstm_inputs(const Lstm&, int64_t, int64_t, int64_t, int64_t);
void lstm_step(const Lstm&, int64_t, int64_t);
int64_t rvq_packed_size(int64_t, int64_t);
void rvq_pack(const float*, int64_t, int64_t, float*);
int64_t rvq_scratch_size(int64_t, int64_t, int64_t);
void rvq_encode(const RvqEncode&, int64_t, int64_t, float*);
void rvq_decode(const RvqDecode&, int64_t, int64_t, int64_t);
void moments(const float*, int64_t, double*, double*);
void affine(const float*, const float*, const float*, int64_t, int64_t, float*);
int64_t attention_block();
int64_t attention_scratch_size(const Attention&, int64_t);
void attention(const Attention&, int64_t, int64_t, int64_t, int64_t, float*);
int64_t conv_round(const Conv&, int64_t, float*);
int64_t rvq_factorised_packed_size(int64_t, int64_t);
void rvq_factorised_pack(const float*, int64_t, int64_t, float*);
int64_t rvq_factorised_block();
int64_t rvq_factorised_scratch_size(const RvqFactorised&);
void rvq_factorised_encode(const RvqFactorised&, int64_t, int64_t, float*);
void rvq_factorised_decode(const RvqFactorised&, int64_t, int64_t, float*);

const Kernels& table() {
  static const Kernels kTable = {FC_STRING(FASTCODEC_ISA_NS),
                                 conv_packed_size,
                                 conv_pack,
                                 conv_panels,
                                 conv,
                                 prologue,
                                 snake_backward_rows,
                                 snake_backward_run,
                                 lstm_sizes,
                                 lstm_pack,
                                 lstm_bias,
                                 lstm_round,
                                 lstm_inputs,
                                 lstm_step,
                                 rvq_packed_size,
                                 rvq_pack,
                                 rvq_scratch_size,
                                 rvq_encode,
                                 rvq_decode,
                                 moments,
                                 affine,
                                 attention_block,
                                 attention_scratch_size,
                                 attention,
                                 conv_round,
                                 rvq_factorised_packed_size,
                                 rvq_factorised_pack,
                                 rvq_factorised_block,
                                 rvq_factorised_scratch_size,
                                 rvq_factorised_encode,
                                 rvq_factorised_decode};
  return kTable;
}

}  // namespace FASTCODEC_ISA_NS
