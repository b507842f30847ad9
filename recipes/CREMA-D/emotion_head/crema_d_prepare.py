"""CREMA-D as it was unpacked -> a manifest for extraction."""

from exhubert_features.cli import main


def prepare_crema_d(data_folder, manifest, *options):
    """Write the manifest, CSV or SpeechBrain JSON by its suffix.

    Arguments
    ---------
    data_folder : str
        The corpus as it was unpacked.
    manifest : str
        The file to write; another one of that name is replaced.
    *options : str
        More options of `exhubert prepare`, such as --lenient.

    Returns
    -------
    int
        0, or what `exhubert prepare` ends with.
    """
    words = [
        "prepare",
        "crema-d",
        str(data_folder),
        "-o",
        str(manifest),
        "--force",
    ]
    return main([*words, *options])
