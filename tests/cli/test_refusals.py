"""Calls that cannot be: each ends with status 2 in one line that holds the words after the arrow, and writes nothing.

``…`` stands for a call that would do, of an image or data and a model; the last of several values counts.
"""

import shlex

import pytest

from cli.commandline import BASES

pytestmark = pytest.mark.fault

EXPLAIN = """
a.png → images and --model require each other
--model somewhere → images and --model require each other
… --size 36 → --size must be a multiple of the model's patch size, 8x8 pixels, but got 36.
… --size 4 → at least a patch
… --size 16000000 → --size must be at most 8192 pixels, but got 16000000.
… --device tpu → --device must be one that PyTorch finds here, of cpu (1)
… --device cpu:a → must be auto, cpu, cuda, cuda:n, mps or xpu, but got 'cpu:a'.
… --methods gmar → listed by `captum-gmar explain --help`, but got 'gmar'. Try gmar++, gmar-l1, gmar-l2,
… --methods layer-gradcam → but got 'layer-gradcam'. Try layer-grad-cam
… --methods 'nothing like it' → --help`, but got 'nothing like it'.
… --methods token-evidence@0 → passes must be a whole number above zero, but got 0. Pass 1 for one pass.
… --methods gmar-l1@3 → must be token-evidence to take passes, but got 'gmar-l1@3'.
… --methods gmar-l1 --passes 3 → --passes requires methods that take it: token-evidence, but got gmar-l1.
… --methods rollout,legrad --tokens cls → rollout-forward,
… --methods rollout,legrad --tokens cls → gmar-l2, but got legrad.
… --methods saliency --tokens cls → --tokens requires methods that take it: gmar++,
… --methods saliency,rollout,legrad --contrast 0 → , but got saliency, rollout.
… --methods rollout --contrast 1 → --contrast requires methods that take it: token-evidence,
… --methods rollout --target top2 → --target top2 requires methods that take it: token-evidence,
… --method rollout → unrecognized arguments: --method rollout
… --tokens register → argument --tokens: must be cls, distillation, patches, or the ROW,COLUMN of a
… --tokens 1 → counted from 0 at the top left, but got '1'.
… --tokens 1,2,3 → but got '1,2,3'.
… --tokens 1,-2 → but got '1,-2'.
… --tokens -1,0 → counted from 0 at the top left, but got '-1,0'.
… --tokens 4,0 → counted from 0), but got the patch (4, 0).
… --tokens distillation → the patches and no 'distillation'.
… --box -5,0,9,9 → argument --box: must be X0,Y0,X1,Y1, the left, top, right and bottom of a box, none
… --box 1,1,9,9 → --box requires another model, but the model classifies images
… --point -5,0 → argument --point: must be X,Y, none below zero, but got '-5,0'.
… --contrast top1 → --contrast must be an index or a label, but got 'top1'.
… --target 0 --contrast tabby → must differ from --target, but got 0 (tabby, tabby cat)
… --target top5 → --target must be at most the 4 classes, but got top5.
… --target top4 --contrast 1 → 4 classes, of which the contrast is left out, but got top4.
… --target top0 → --target must be topK, an index or a label, but got 'top0'.
… --target top2 --width 1 → width must be at least 2.30 inches for 3 columns, but got 1.00.
… --share-scale --methods gmar-l1 → requires several maps, but got one.
… --output none/a.png → none cannot be written: no folder for a.png
… --output photo.png/ → photo.png cannot be written: it is a file, no folder
… --output a.gif → --output must end in one of .png, .jpg, .jpeg, .pdf, .svg, .html, but got 'a.gif'.
… --output photo.png → --output must not be the image itself
… --save-array a.npy → --save-array must end in one of .npz, but got 'a.npy'.
… --save-array none/a.npz → none cannot be written: no folder for a.npz
… --no-proof → --no-proof requires a page
… --output out/page.html --tokens 1,1 → --tokens requires a picture, but got a page, which holds all likely classes.
… --output out/page.html --target 0 → --target requires a picture, but got a page, which holds all likely classes.
… --output out/page.html --contrast 0 → --contrast requires a picture, but got a page, which holds all likely classes.
… --text 'a cat' → must score images against texts, but is of type 'vit'
… --model models/clip-of-texts --text aaaaaaaaaaaaaaaaaaaa → text must be of at most the model's 16 tokens
… --model models/clip-of-texts --text 'a a a a a a a a a a a a a a a a a a a a' → text must be of at most the model's 16
… --model models/clip-of-texts --text '' → texts must be at least one, none empty
--text 'a cat' → --text requires --model, but got none. Pass a model that scores images against texts.
… --prompt what? → must answer about pictures or sounds, but is of type 'vit'
… --model models/bert → must be an image classifier, but is of type 'bert'
… --model models/headless → must be a trained image classifier, but its file lacks classifier.bias and 1 more
… --model models/resnet → cannot be explained
… --model models/nan --save-array a.npz → NaN
… --model models/nothing → no such folder
… --model vit/config.json → --model vit/config.json cannot be loaded: it is no folder.
… --model out → it has no config.json
- --model vit → - cannot be read: no such file. Pass an image file as a file, as standard input is not read.
https://a.example/cat.png --model vit → a.example/cat.png cannot be read: no such file. Download it first
/dev/zero --model vit → /dev/zero cannot be read: it is a pipe or a device, not an image file.
pipe.png --model vit → pipe.png cannot be read: it is a pipe or a device, not an image file. Pass a file.
broken.png --model vit --output out/a.png → broken.png cannot be read: not an image
empty.png --model vit → empty.png cannot be read: the file is empty
out --model vit → out must hold image files, but holds none
photo.png photos/0.png --model vit --output a.png → --output must be a folder for 2 images, new ones
"""
COMPARE = """
photo.png → IMAGE and --model require each other
--model vit → IMAGE and --model require each other
… out → unrecognized arguments: out
--removal cut → argument --removal: invalid choice: 'cut'
… --output out/a.gif → --output must end in one of .png
… --save-table t.xlsx → --save-table must end in one of .csv, .json, .md, but got 't.xlsx'
… --save-table no/t.md → no cannot be written: no folder for t.md
… --steps 17 → cannot be compared: steps must be at most the number of patches, 16, but got 17
… --target zeppelin → --target must be top1, an index or a label, but got 'zeppelin'
… --target top2 → --target must be top1, an index or a label, but got 'top2'
out --model vit → out cannot be read: it is a folder, not an image file
… --model models/nan → cannot be compared: forward_func must return outputs without NaN
… --model models/resnet → cannot be compared: ResNetForImageClassification must have a
… --model models/headless → must be a trained image classifier
"""
EVALUATE = """
photos --output results → DATA and --model require each other
… --methods gmar-l3 → Try
… --steps 17 → steps must be at most the number of patches, 16
… --part 3/2 → must be K/N, two numbers with K from 1 to N
… --target guess → invalid choice
--output results --removal fire → must be of zero, mean, blur
… --metrics relevance-mass → metrics relevance-mass require boxes or masks
… --metrics insertion,speed → but got 'speed'
… --model models/one → a model of several classes
none.csv --model vit --output results → none.csv cannot be read: no such file or folder
"""
HEADS = """
photos → DATA and --model require each other
out --model vit → out must be an image, a folder of images
broken.png --model vit → broken.png cannot be read: not an image
photos --model models/none → no such folder
… --scores gmar-l1,taylor → but got 'taylor'
… --target dog → --target must be predicted, label, an index or a label, but got 'dog'
"""
AUDIT = """
out --model vit → out must be an image, a folder of images
photos --model vit --method gmar → argument --method: must be one of captum_gmar.list_methods()
photos --model vit --output . → .: must be a new or empty folder, or one of results
"""
TABLES = {"explain": EXPLAIN, "compare": COMPARE, "evaluate": EVALUATE, "heads": HEADS, "audit": AUDIT}
ROWS = [(name, *line.split(" → ")) for name, table in TABLES.items() for line in table.strip("\n").splitlines()]


@pytest.mark.parametrize(("name", "call", "says"), ROWS)
def test_what_cannot_be_is_one_line(refuses, name, call, says):
    words = [given for word in shlex.split(call) for given in (BASES[name] if word == "…" else [word])]
    refuses(name, *words, says=says.strip())


@pytest.mark.parametrize("words", [(), ("",), ("explian",), ("--wrong",)])
def test_no_command(refuses, words):
    refuses(*words, says="COMMAND")
