"""What to do about messages that do not say it themselves, by a part of their text."""

CURES = {
    "no such folder": "Check the path; a model of the hub is `owner/name`, without a network one in the cache.",
    "not an image classifier": (
        "Pass a checkpoint of an image classifier. CLIP and SigLIP take `--text`; a backbone or another head is "
        "explained in Python, by `forward_func=`."
    ),
    "score images against texts": "Pass CLIP, SigLIP or one of their kind with `--text`, others without.",
    "not a trained image classifier": "Take the checkpoint that was fine-tuned for classification, or train its head.",
    "its weights do not fit its config.json": "Take config.json and weights of one checkpoint.",
    "its config.json leaves out layers of its file": "Take the config.json that was saved with these weights.",
    "this folder holds no model": "Pass the folder that `save_pretrained` wrote, not the one above it.",
    "give IMAGE and --model": "Name both; with neither, the built-in scene is explained.",
    "give DATA and --model": "Name both; with neither, the built-in scenes are taken.",
    "give images and --model": "Name both; with neither, the built-in scene is explained.",
    "image processor cannot take it": "Save the image as RGB, or pass the folder of another image processor.",
    "out of memory": "Make the batch or the images smaller; see [memory](/how-to/memory.md).",
    "the methods cannot be compared": "What follows the colon says why, and is on this page as well.",
    "prediction cannot be explained": "What follows the colon says why, and is on this page as well.",
    "patch grids of different shapes": "Pass `--size`, so that all images are cut into equally many patches.",
    "no image files in this folder": "Check the path. Pictures that this package drew are left out.",
    "no such folder to write": "Make the folder first, or end `--output` in a slash where it is a folder itself.",
    "is a file, and a folder": "Choose another name, or move the file away.",
    "is a folder, and a file": "Choose another name, or add a file name to it.",
    "is read-only": "Choose a folder that you may write to.",
    "no such file": "Check the path; in a table it begins at the folder of the table.",
    "must not be the image itself": "Choose another name: no picture replaces what it explains.",
    "standard output cannot be written": "The program that reads the output has ended, or its disk is full.",
    "No gradient: these blocks": "Call `loss.backward()` on what the recorded pass returned, before reading gradients.",
    "it has no image": "Give every record a path in its column `path`.",
    "it is no list of records": "Write a JSON list of objects, or a CSV file with a header.",
    "cannot be read as a mask": "Save the mask as an image of the photo's size: zero where the object is not.",
    "neither .csv nor .json": "Name the table so, or pass a folder of images.",
    "its mask is of": "Make mask and image of one size.",
    "must not be called 'random'": "Give the score another name.",
    "at work there already": "Wait, or write to another folder.",
    "it holds NaN or infinity": "Mend the array that the image was made of.",
    "the file is empty": "The copy was interrupted: fetch the file again.",
    "not an image in any format": "Convert it to PNG or JPEG.",
    "too many pixels": "Scale the image down first: the model sees a few hundred pixels a side.",
    "cannot be read as an image": "The file is damaged: what follows the colon is Pillow's own message.",
    "cannot be written": "What follows the colon is the system's reason, such as a full disk or missing rights.",
    "area needs two counts": "Pass at least two numbers of heads, such as 0 and all.",
    "needs transformers 5 or newer": "`pip install --upgrade transformers`.",
    "which image token of this model stands": "Take a model with one image token for each place, such as LLaVA.",
    "must tell which image token stands": "Explain a model that tells it; of others, look at the numbers themselves.",
    "which reads text alone": "Pass a model that answers about pictures, or no picture.",
    "must take pictures, where there are any": "Load it by `AutoProcessor.from_pretrained` of the model's name.",
    "processor must fit the model": "Load model and processor from one name or folder.",
    "… cannot take the …: …: …": "What follows the last colon is the processor's own message.",
    "not a trained model that answers": "Pass the name or folder of a whole checkpoint, not of a part of it.",
    "not a model that answers about pictures": "Take a model of images and text that writes, and no classifier.",
    "must score images against texts": "Pass a model of images and texts, such as `CLIPModel` or `SiglipModel`.",
    "it takes no tokens": "Choose one with `tokens=`: rollout, GMAR, gradient rollout and their relatives.",
}


def written_cure(text: str) -> str | None:
    """None where there is none."""
    return next((cure for part, cure in CURES.items() if part in text), None)
