/* A TFLite external delegate that computes the operators of kind CLAIMED itself: 0 is ADD, -1 is none.

   Refuses to start when a setting says "unplugged". The structures are TFLite's own ABI, of which what is used here
   is written anew after its public headers (tensorflow/lite/core/c/common.h). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } Ints;
typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  int type;
  void *data;
  Ints *dims;
  struct { float scale; int32_t zero; } params;
  int allocation;
  size_t bytes;
  const void *mapped;
  const char *name;
  Delegate *delegate;
  int handle;
  bool stale, variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const Ints *signature;
} Tensor;

typedef struct {
  Ints *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void *custom;
  int custom_size;
  Delegate *delegate;
  bool effects;
} Node;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profile)(const Context *, const Node *);
  int32_t builtin;
  const char *name;
  int version;
  void *external, *async;
  uint64_t inplace;
} Registration;

struct Context {
  size_t count;
  int (*plan)(Context *, Ints **);
  Tensor *tensors;
  void *impl;
  int (*resize)(Context *, Tensor *, Ints *);
  void (*error)(Context *, const char *, ...);
  int (*add)(Context *, int, int *);
  int (*node)(Context *, int, Node **, Registration **);
  int (*replace)(Context *, Registration, const Ints *, Delegate *);
};

struct Delegate {
  void *data;
  int (*prepare)(Context *, Delegate *);
  void *from, *to, *release;
  int64_t flags;
  void *opaque;
};

typedef struct { Delegate *delegate; Ints *nodes, *inputs, *outputs; } Part;
typedef struct { int count; int (*steps)[3]; } Kernel;

static void *start(Context *context, const char *buffer, size_t size) {
  (void)size;
  const Part *part = (const Part *)buffer;
  Kernel *kernel = malloc(sizeof *kernel);
  kernel->count = part->nodes->size;
  kernel->steps = malloc(sizeof(int[3]) * kernel->count);
  for (int i = 0; i < kernel->count; i++) {
    Node *node;
    Registration *registration;
    context->node(context, part->nodes->data[i], &node, &registration);
    kernel->steps[i][0] = node->inputs->data[0];
    kernel->steps[i][1] = node->inputs->data[1];
    kernel->steps[i][2] = node->outputs->data[0];
  }
  return kernel;
}

static void stop(Context *context, void *buffer) {
  (void)context;
  free(((Kernel *)buffer)->steps);
  free(buffer);
}

static int ready(Context *context, Node *node) {
  (void)context, (void)node;
  return 0;
}

/* The sums, and MARK more, so that it shows who computed. */
static int run(Context *context, Node *node) {
  const Kernel *kernel = node->user_data;
  for (int i = 0; i < kernel->count; i++) {
    const Tensor *a = &context->tensors[kernel->steps[i][0]], *b = &context->tensors[kernel->steps[i][1]];
    Tensor *sum = &context->tensors[kernel->steps[i][2]];
    const size_t width = b->bytes / sizeof(float);
    for (size_t j = 0; j < sum->bytes / sizeof(float); j++)
      ((float *)sum->data)[j] = ((float *)a->data)[j] + ((float *)b->data)[j % width] + MARK;
  }
  return 0;
}

static int claim(Context *context, Delegate *delegate) {
  Ints *plan;
  if (context->plan(context, &plan)) return 1;
  Ints *mine = malloc(sizeof(Ints) + sizeof(int) * plan->size);
  mine->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    if (context->node(context, plan->data[i], &node, &registration)) return 1;
    if (registration->builtin == CLAIMED) mine->data[mine->size++] = plan->data[i];
  }
  Registration kernel = {start, stop, ready, run, NULL, 0, "AddingDelegate", 1, NULL, NULL, 0};
  const int status = context->replace(context, kernel, mine, delegate);
  free(mine);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  (void)keys;
  for (size_t i = 0; i < count; i++)
    if (!strcmp(values[i], "unplugged")) {
      report("no NPU answers");
      return NULL;
    }
  Delegate *delegate = calloc(1, sizeof *delegate);
  delegate->prepare = claim;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
