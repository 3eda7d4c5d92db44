/** What one call asks for: which videos are known, which must be encoded, and which contradict each other. */

import { notStored } from "./encoder.js";
import { ConflictError, VideoError } from "./errors.js";
import { Video } from "./inputs.js";
import type { Failed, Role } from "./ranking.js";
import type { TokenStore } from "./store.js";

interface Claim {
  video: Video;
  /** Named by its id alone, and known: it means what is stored. */
  fromStore: boolean;
  title: string | null;
  roles: Set<Role>;
}

/** A video to encode under an id. */
export interface Job {
  id: string;
  video: Video;
  title: string | null;
}

export class Intake {
  /** Ids that could not be encoded, and why, even if an older content of theirs is stored. */
  readonly unusable = new Map<string, VideoError>();
  private readonly claims = new Map<string, Claim>();
  private readonly problems = new Map<string, Failed>();

  /**
   * @param store What is known.
   * @param look Whether a known id's file is compared with what is known (`encode`), or not looked at (`rank`).
   */
  constructor(private readonly store: TokenStore, private readonly look = false) {}

  /** What could not be used so far, each (id, role, code) once. */
  get failed(): Failed[] {
    return [...this.problems.values()];
  }

  /** Ids that were taken in. */
  get ids(): string[] {
    return [...this.claims.keys()];
  }

  /** Take a video in; false if it contradicts an earlier one of the same id. */
  async admit(video: Video, role: Role): Promise<boolean> {
    const { id, title } = video;
    const claim = this.claims.get(id);
    if (!claim) {
      const fromStore = !video.hasContent && !this.look && this.store.has(id);
      this.claims.set(id, { video, fromStore, title, roles: new Set([role]) });
      return true;
    }
    try {
      await this.reconcile(claim, video);
    } catch (e) {
      if (!(e instanceof VideoError)) throw e;
      this.fail(id, role, e);
      return false;
    }
    claim.roles.add(role);
    return true;
  }

  /** What has to be encoded now; what is neither known nor given fails. */
  async jobs(): Promise<Job[]> {
    const jobs: Job[] = [];
    for (const [id, claim] of this.claims) {
      try {
        if (!(await this.mustEncode(id, claim))) continue;
        if (!claim.video.hasContent) throw notStored();
        jobs.push({ id, video: claim.video, title: claim.title });
      } catch (e) {
        if (!(e instanceof VideoError)) throw e;
        this.failEverywhere(id, e);
      }
    }
    return jobs;
  }

  /** Note that a video could not be used. */
  fail(id: string, role: Role, error: VideoError): void {
    const key = JSON.stringify([id, role, error.code]);
    if (!this.problems.has(key)) this.problems.set(key, { id, role, code: error.code, reason: error.message });
  }

  /** Note it for each role in which the id was taken in, and that it is not to be ranked. */
  failEverywhere(id: string, error: VideoError): void {
    this.unusable.set(id, error);
    for (const role of this.claims.get(id)!.roles) this.fail(id, role, error);
  }

  private async reconcile(claim: Claim, video: Video): Promise<void> {
    if (video.title !== null) {
      if (claim.title !== null && claim.title !== video.title) {
        throw new ConflictError("its id stands for two titles in this call: give each its own id");
      }
      claim.title = video.title;
    }
    if (!video.hasContent || (video.file && video.file === claim.video.file)) return;
    const twice = "its id stands for two different contents in this call: give each its own id";
    if (claim.fromStore) {
      const known = this.store.fingerprint(video.id);
      if (video.frames && known && known.content !== (await video.content())) throw new ConflictError(twice);
    } else if (!claim.video.hasContent) {
      claim.video = video; // so far only named
    } else if ((await claim.video.content()) !== (await video.content())) {
      throw new ConflictError(twice);
    }
  }

  private async mustEncode(id: string, { video, fromStore, title }: Claim): Promise<boolean> {
    const known = this.store.fingerprint(id);
    if (!known) return true;
    if (!video.hasContent || (fromStore && title === null)) return false;
    if (title !== null && title !== known.title) return true;
    if (video.frames) return known.content !== (await video.content());
    if (!this.look) return false;
    const { size, lastModified } = video.file as File;
    if (known.size === size && known.modified === lastModified) return false;
    if (known.content !== (await video.content())) return true;
    this.store.setFile(id, size, lastModified ?? null);
    return false;
  }
}
